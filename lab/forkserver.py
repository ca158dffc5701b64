"""Starts the nodes' programs from one process that has loaded them already; without it each would take half a second
of a processor to import the same again, which is most of what it takes to bring up a lab.

What runs is `python -m bot.cli WORD ...` as anywhere else, in a process, session, environment and network namespace of
its own. Only the interpreter is not started anew: `ps` calls it by its word and node.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any, NoReturn

from lab.namespaces import Namespace, setns

PR_SET_NAME = 15
COMMAND_LINE = "bot.cli"
# A command loads these itself, but only when it runs. Not the command line: what is to run must not be loaded yet.
LOADED = ("importlib.metadata", "aiohttp.web", "node_probe.command", "node_probe.server", "node_probe.answer")
LOADED_WITH_FIXERS = (*LOADED, "fixes.command")


class Forkserver:
    """Ends with the process that made it."""

    def __init__(self, *, fixers: bool) -> None:
        """To be made while this process has no second thread: a forked one would have lost it. Raises OSError."""
        self._wire, there = socket.socketpair()
        self._one_at_a_time = threading.Lock()
        sys.stdout.flush()
        sys.stderr.flush()
        if os.fork() == 0:
            _serve(there, LOADED_WITH_FIXERS if fixers else LOADED)
        there.close()

    def start(
        self, words: Sequence[str], *, environment: Mapping[str, str], namespace: Namespace, log: IO[bytes]
    ) -> int:
        """`calico-why WORDS` in a namespace, whose words go into the log. A pidfd: readable when it has ended.

        Waits until what is to run has been loaded. Raises OSError.
        """
        line = json.dumps({"words": list(words), "environment": dict(environment)}).encode() + b"\n"
        with self._one_at_a_time:
            sent = socket.send_fds(self._wire, [line], [namespace.descriptor, log.fileno()])
            self._wire.sendall(line[sent:])
            _, descriptors, *_ = socket.recv_fds(self._wire, 1, 1)
        if not descriptors:
            raise ConnectionError("the process that starts the nodes' programs is gone")
        return descriptors[0]


def _serve(wire: socket.socket, modules: Sequence[str]) -> NoReturn:
    """Never returns into what was forked."""
    status = 3
    try:
        close_all_but(wire.fileno())
        for module in modules:
            with contextlib.suppress(ModuleNotFoundError):  # an installation without it says so when it is started
                importlib.import_module(module)
        gc.collect()
        gc.freeze()
        while (asked := _receive(wire)) is not None:
            request, descriptors = asked
            with contextlib.suppress(ChildProcessError):  # those that ended since the last request
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            pid = os.fork()
            if pid == 0:
                _become(request["words"], request["environment"], *descriptors)
            started = os.pidfd_open(pid)
            socket.send_fds(wire, [b"+"], [started])
            for descriptor in (started, *descriptors):
                os.close(descriptor)
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()  # into server.log
    finally:
        sys.stderr.flush()
        os._exit(status)


def _receive(wire: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """What to become, and its namespace and log; None when nobody asks any more."""
    data, descriptors = b"", []
    while not data.endswith(b"\n"):
        chunk, sent, *_ = socket.recv_fds(wire, 65536, 2)
        if not chunk:
            return None
        data += chunk
        descriptors += sent
    return json.loads(data), descriptors


def _become(words: list[str], environment: dict[str, str], namespace: int, log: int) -> NoReturn:
    status: object = 3
    try:
        os.setsid()
        setns(namespace)
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        close_all_but()
        os.environ.clear()
        os.environ.update(environment)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(write_through=True)  # type: ignore[union-attr]
        name = " ".join(word for word in words[:3] if word != "--node")
        ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode())  # the kernel keeps 15 characters
        sys.argv[1:] = words
        runpy.run_module(COMMAND_LINE, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 0 if status is None else 1)


def close_all_but(*kept: int) -> None:
    """Files that were open before the fork, except those everybody has."""
    last = 2
    for descriptor in sorted(kept):
        os.closerange(last + 1, descriptor)
        last = descriptor
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))
