"""Starts the labs of a test run from one process that has loaded the lab and the nodes' programs already; without it
each of some two hundred labs would take a second of a processor to import the same again.

What runs is `python -m lab up ...` all the same, in a process and environment of its own. tests/test_lab.py starts its
labs as people do.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lab import client, forkserver

AS_PEOPLE_DO = client.launch
ROOT = Path(__file__).resolve().parents[1]
LOADED = ("lab.command", "lab.server", *forkserver.LOADED_WITH_FIXERS)


class Forked:
    """A launcher of a lab."""

    def __init__(self, process: int) -> None:
        """process: its pidfd"""
        self._process = process

    def wait(self) -> None:
        ended = select.poll()
        ended.register(self._process, select.POLLIN)
        ended.poll()
        os.close(self._process)


class LabForks:
    """Ends with the process that made it. Makes its own at the first lab."""

    def __init__(self) -> None:
        self._wire: socket.socket | None = None
        self._one_at_a_time = threading.Lock()

    def launch(self, words: Sequence[str], report: socket.socket, environment: Mapping[str, str]) -> Forked:
        """`python -m lab WORDS --report-fd ...`, as `lab.client.launch`."""
        request = {"words": list(words), "environment": dict(environment), "directory": str(Path.cwd())}
        line = json.dumps(request).encode() + b"\n"
        with self._one_at_a_time:
            wire = self._wire = self._wire or _started()
            sent = socket.send_fds(wire, [line], [report.fileno()])
            wire.sendall(line[sent:])
            _, [process], *_ = socket.recv_fds(wire, 1, 1)
        return Forked(process)


def _started() -> socket.socket:
    here, there = socket.socketpair()
    command = [sys.executable, "-m", "tests.lab_forks", str(there.fileno())]
    subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[there.fileno()])
    there.close()
    return here


def _serve(wire: socket.socket) -> None:
    for module in LOADED:
        importlib.import_module(module)
    assert threading.active_count() == 1  # a forked process would have lost the others
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel itself buries what has ended
    while (asked := _receive(wire)) is not None:
        request, report = asked
        pid = os.fork()
        if pid == 0:
            wire.close()
            _become(request, report)
        process = os.pidfd_open(pid)
        socket.send_fds(wire, [b"+"], [process])
        os.close(process)
        os.close(report)


def _receive(wire: socket.socket) -> tuple[dict[str, Any], int] | None:
    """What to become, and its end of the wire it reports by; None when nobody asks any more."""
    data, descriptors = b"", []
    while not data.endswith(b"\n"):
        chunk, sent, *_ = socket.recv_fds(wire, 65536, 1)
        if not chunk:
            return None
        data += chunk
        descriptors += sent
    return json.loads(data), descriptors[0]


def _become(request: dict[str, Any], report: int) -> NoReturn:
    status: object = 3
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.chdir(request["directory"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.argv[1:] = [*request["words"], "--report-fd", str(report)]
        runpy.run_module("lab", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 0 if status is None else 1)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt), socket.socket(fileno=int(sys.argv[1])) as wire:
        _serve(wire)
