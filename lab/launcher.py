"""Starts a lab from an ordinary process and takes it away again however it ends; without it labs would be left behind.

Owns the listening sockets on the host's loopback: they keep serving although the server lives in other namespaces.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lab.errors import LabError, NamespacesForbidden
from lab.namespaces import CLONE_NEWPID, become_init, die_with_parent, new_user_namespace, unshare
from lab.server import serve
from lab.settings import Settings
from lab.state import StateDirectory

END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Report = Callable[[dict[str, Any]], None]


@dataclass
class Sockets:
    """Made in the host's namespaces, used inside the lab."""

    api: socket.socket
    proxy: socket.socket
    control: socket.socket

    def close(self) -> None:
        for one in (self.api, self.proxy, self.control):
            one.close()


def launch(settings: Settings, name: str, report: Report, parent: socket.socket | None = None) -> int:
    """Runs a lab until a signal, until `parent` is closed at its other end, or until it ends by itself.

    `report` gets {"progress": text}, once {"ready": status}, or {"error": sentence}. Returns the exit status.
    Raises LabError when it cannot even begin.
    """
    state = StateDirectory.create(name)
    sockets = None
    try:
        sockets = _listen(state.path)
        reading, writing = os.pipe()
        launcher = os.getpid()
        sys.stdout.flush()
        keeper = os.fork()
        if keeper == 0:
            os.close(reading)
            _keep(launcher, settings, state, sockets, writing)
        os.close(writing)
        sockets.close()
        return _watch(keeper, reading, report, parent, state)
    finally:
        if sockets:
            sockets.close()
        state.remove()


def _listen(directory: Path) -> Sockets:
    def loopback() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.bind(("127.0.0.1", 0))
        made.listen(128)
        return made

    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control.bind(str(directory / "control.sock"))
    control.listen(16)
    return Sockets(api=loopback(), proxy=loopback(), control=control)


@contextlib.contextmanager
def _signals_as_bytes() -> Iterator[socket.socket]:
    """A socket that becomes readable when a signal that should end the lab arrives."""
    here, there = socket.socketpair()
    here.setblocking(False)
    there.setblocking(False)
    previous = {number: signal.signal(number, lambda *_: None) for number in END_SIGNALS}
    wakeup = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
    try:
        yield here
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in previous.items():
            signal.signal(number, handler)
        here.close()
        there.close()


def _watch(keeper: int, reading: int, report: Report, parent: socket.socket | None, state: StateDirectory) -> int:
    ready, told = False, 0  # the exit status that goes with what was told
    buffer = b""
    ended = os.pidfd_open(keeper)
    with _signals_as_bytes() as signals, selectors.DefaultSelector() as selector:
        selector.register(reading, selectors.EVENT_READ)
        selector.register(ended, selectors.EVENT_READ)
        selector.register(signals, selectors.EVENT_READ)
        if parent:
            selector.register(parent, selectors.EVENT_READ)
        status = None
        while status is None:
            readable = {key.fileobj for key, _ in selector.select()}
            if reading in readable:
                chunk = os.read(reading, 65536)
                if not chunk:
                    selector.unregister(reading)
                *lines, buffer = (buffer + chunk).split(b"\n")
                for message in map(json.loads, lines):
                    ready = ready or "ready" in message
                    told = told or (message["status"] if "error" in message else 0)
                    report(message)
            if signals in readable or (parent in readable and not _still_there(parent)):
                os.kill(keeper, signal.SIGTERM)
                os.waitpid(keeper, 0)
                status = 0
            elif ended in readable and reading not in readable:
                _, how = os.waitpid(keeper, 0)
                status = 0 if how == 0 else told or 3
        os.close(ended)
        os.close(reading)
    if status and not told:
        when = "The lab ended by itself" if ready else "The lab could not start"
        report({"error": f"{when}. The last lines of its log:\n{_tail(state.path / 'logs' / 'server.log')}"})
    return status


def _still_there(parent: socket.socket | None) -> bool:
    try:
        return parent is not None and bool(parent.recv(4096))
    except OSError:
        return False


def _tail(log: Path) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    except OSError:
        return "(there is none)"


def _keep(launcher: int, settings: Settings, state: StateDirectory, sockets: Sockets, writing: int) -> NoReturn:
    """Stays outside the lab's mount namespace, so that it can remove the files should the launcher be killed."""
    init = 0
    ending = False

    def end(*_: object) -> None:
        nonlocal ending
        ending = True
        if init:
            with contextlib.suppress(ProcessLookupError):
                os.kill(init, signal.SIGKILL)

    status = 3
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in END_SIGNALS:
            signal.signal(number, end)
        # Nobody may wait for the end of the launcher's output because the lab still holds it.
        log = os.open(state.path / "logs" / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        if os.geteuid() != 0:
            new_user_namespace()
        die_with_parent(launcher, signal.SIGTERM)
        try:
            unshare(CLONE_NEWPID)
        except PermissionError:  # root without its powers, as in many containers
            new_user_namespace()
            unshare(CLONE_NEWPID)
        alive, _kept = os.pipe()
        init = os.fork()
        if init == 0:
            os.close(_kept)
            _init(settings, state.path, sockets, writing, alive)
        os.close(alive)
        os.close(writing)
        writing = -1
        sockets.close()
        if ending:
            os.kill(init, signal.SIGKILL)
        _, how = os.waitpid(init, 0)
        status = 0 if ending else os.waitstatus_to_exitcode(how) and 3
    except LabError as error:
        os.write(writing, _told(error))
    except OSError as error:
        if writing >= 0:
            os.write(writing, _told(LabError(f"The lab could not start: {error}.")))
    finally:
        if os.getppid() != launcher:
            state.remove()
        os._exit(status)


def _init(settings: Settings, directory: Path, sockets: Sockets, writing: int, alive: int) -> NoReturn:
    """Pid 1 of the lab: starts the server and buries the dead. With it the kernel ends every process of the lab."""
    status = 3
    try:
        for number in END_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        die_with_parent(os.getppid(), signal.SIGKILL)
        os.set_blocking(alive, False)
        with contextlib.suppress(BlockingIOError):
            if not os.read(alive, 1):
                os._exit(3)  # the keeper died before the kernel was told to watch it
        become_init(directory)
        server = os.fork()
        if server == 0:
            _server(settings, directory, sockets, writing)
        os.close(writing)
        sockets.close()
        while True:
            child, how = os.wait()
            if child == server:
                status = os.waitstatus_to_exitcode(how) and 3
                break
    except LabError as error:
        os.write(writing, _told(error))
    finally:
        os._exit(status)


def error_message(error: LabError) -> dict[str, Any]:
    """{"error": sentence, "status": exit status, "forbidden": whether no lab is possible on this machine}"""
    forbidden = isinstance(error, NamespacesForbidden)
    return {"error": error.sentence, "status": error.status, "forbidden": forbidden}


def _told(error: LabError) -> bytes:
    return json.dumps(error_message(error)).encode() + b"\n"


def _server(settings: Settings, directory: Path, sockets: Sockets, writing: int) -> NoReturn:
    def report(message: dict[str, Any]) -> None:
        os.write(writing, json.dumps(message).encode() + b"\n")

    status = 3
    try:
        serve(settings, directory, sockets.api, sockets.proxy, sockets.control, report)
        status = 0
    except LabError as error:
        report(error_message(error))
    except BaseException:
        import traceback

        traceback.print_exc()  # into server.log; the launcher shows its last lines
    finally:
        sys.stderr.flush()
        os._exit(status)
