"""Starts bots and fixers from one process that has loaded them already, and says how they ended; without it most of a
test that needs ten of them would be Python reading modules.

What runs is `calico-why WORDS` all the same, in a process and environment of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from lab.namespaces import die_with_parent

ROOT = Path(__file__).resolve().parents[1]
LOADED = (
    "bot.app",
    "bot.cli",
    "bot.commands.serve",
    "bot.sources.kubernetes",
    "bot.sources.probes",
    "bot.terminal",
    "bot.watch",
    "fixes.command",
    "fixes.kinds.write_resource",
)


class Program:
    """One that runs. log: all that it has written."""

    def __init__(self, pid: int, report: int, log: Path) -> None:
        """report: its pid and, where it ended by itself, its exit status come there, and the end when it is over."""
        self.pid = pid
        self.log = log
        self._report = report

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def ended(self) -> int | None:
        """Its exit status once it is over; None where it was killed."""
        said = await asyncio.to_thread(_all_of, self._report)
        return int(said) if said else None

    @property
    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")


class Programs:
    """Ends with the process that made it, and so does all that it started."""

    def __init__(self, main: str = "bot.cli", loaded: Sequence[str] = LOADED) -> None:
        """main: the module whose `main(words)` runs. loaded: all that it needs."""
        self._wire, there = socket.socketpair()
        command = [sys.executable, "-m", "tests.programs", str(there.fileno()), main, *loaded]
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[there.fileno()])
        there.close()

    def start(self, words: Sequence[str], environment: Mapping[str, str], log: Path) -> Program:
        with log.open("ab") as file:
            return Program(*self.begin(words, environment, file.fileno(), file.fileno()), log)

    def begin(self, words: Sequence[str], environment: Mapping[str, str], output: int, errors: int) -> tuple[int, int]:
        """The same, whose output goes anywhere: `pid` and `report` of a Program."""
        request = {"words": list(words), "environment": dict(environment)}
        read, write = os.pipe()
        socket.send_fds(self._wire, [json.dumps(request).encode() + b"\n"], [write, output, errors])
        os.close(write)
        with os.fdopen(os.dup(read), "rb", buffering=0) as report:
            return int(report.readline()), read

    def close(self) -> None:
        self._wire.close()


def _all_of(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _serve(wire: socket.socket, main: str, loaded: Sequence[str]) -> None:
    for module in loaded:
        importlib.import_module(module)
    assert threading.active_count() == 1  # a forked process would have lost the others
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel itself buries what has ended
    here = os.getpid()
    while True:
        data, descriptors, *_ = socket.recv_fds(wire, 1 << 16, 3)
        if not data:
            return
        if os.fork() == 0:
            wire.close()
            _become(main, json.loads(data), *descriptors, here)
        for descriptor in descriptors:
            os.close(descriptor)


def _become(main: str, request: dict[str, object], report: int, output: int, errors: int, parent: int) -> NoReturn:
    status: object = 1
    try:
        die_with_parent(parent, signal.SIGKILL)
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.set_inheritable(report, False)
        for standard, descriptor in ((1, output), (2, errors)):
            os.dup2(descriptor, standard)
            os.close(descriptor)
        environment, words = request["environment"], request["words"]
        assert isinstance(environment, dict)
        assert isinstance(words, list)
        os.environ.clear()
        os.environ.update(environment)
        os.write(report, f"{os.getpid()}\n".encode())
        status = importlib.import_module(main).main(words)
    except SystemExit as end:
        status = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(report, str(status if isinstance(status, int) else 0 if status is None else 1).encode())
        os._exit(0)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt), socket.socket(fileno=int(sys.argv[1])) as wire:
        _serve(wire, sys.argv[2], sys.argv[3:])
