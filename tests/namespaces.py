"""A network of its own for one test: without it only root could test the probe, and would break the machine's."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import functools
import inspect
import os
import pickle
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from node_probe.namespaces import inside

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG = 1
ENOUGH_S = 60
FORBIDDEN = {errno.EPERM, errno.EACCES, errno.ENOSPC, errno.ENOSYS, errno.EINVAL}

_libc = ctypes.CDLL(None, use_errno=True)


class Forbidden(Exception):
    """This machine makes no namespaces for this user."""


def in_namespaces(test: Callable[..., Any]) -> Callable[..., Any]:
    """Runs the test (async too) in a forked child that is root of its own user, network and mount namespaces with a
    private /run and lo up. What it returns or raises comes back; where the machine forbids it, the test is skipped."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> Any:
        def work() -> Any:
            result = test(*args, **kwargs)
            return asyncio.run(result) if inspect.iscoroutine(result) else result

        return isolated(work)

    return run


def isolated(work: Callable[[], Any]) -> Any:
    """`work()` in such a child. Its failure is an AssertionError with the child's traceback."""
    reader, writer = os.pipe()
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(work, writer, parent)  # never returns
    os.close(writer)
    try:
        kind, value = _receive(reader)
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if kind == "forbidden":
        pytest.skip(f"this machine gives no user namespace to this user: {value}")
    if kind == "skipped":
        pytest.skip(value)
    assert kind == "returned", f"in the namespaces:\n{value}"
    return value


def _receive(reader: int) -> tuple[str, Any]:
    data = b""
    while True:
        ready, _, _ = select.select([reader], [], [], ENOUGH_S)
        if not ready:
            return "late", f"no result after {ENOUGH_S} s"
        part = os.read(reader, 1 << 16)
        if not part:
            break
        data += part
    return pickle.loads(data) if data else ("died", "the child ended without a word")


def _child(work: Callable[[], Any], writer: int, parent: int) -> None:
    try:
        _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        _isolate()
        result = ("returned", work())
    except Forbidden as error:
        result = ("forbidden", str(error))
    except pytest.skip.Exception as error:
        result = ("skipped", str(error))
    except BaseException:
        result = ("raised", traceback.format_exc())
    with contextlib.suppress(BrokenPipeError):
        data = memoryview(pickle.dumps(result))
        while data:
            data = data[os.write(writer, data) :]
    os._exit(0)


def _isolate() -> None:
    user, group = os.geteuid(), os.getegid()
    try:
        try:
            _call(_libc.unshare(CLONE_NEWUSER))
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        except OSError as error:
            if user != 0 or error.errno not in FORBIDDEN:  # root needs no user namespace
                raise
        _call(_libc.unshare(CLONE_NEWNS | CLONE_NEWNET))
        _call(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
        _call(_libc.mount(b"tmpfs", b"/run", b"tmpfs", 0, b"mode=755"))
    except OSError as error:
        if error.errno in FORBIDDEN:
            raise Forbidden(error.strerror or str(error)) from error
        raise


def _call(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Place:
    """A network namespace under /run/netns, as CNI leaves a pod's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path("/run/netns", name)
        self.path.parent.mkdir(exist_ok=True)
        self.path.touch(exist_ok=False)
        made: list[BaseException] = []

        def make() -> None:
            try:
                _call(_libc.unshare(CLONE_NEWNET))
                Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
                _call(_libc.mount(b"/proc/thread-self/ns/net", str(self.path).encode(), None, MS_BIND, None))
            except BaseException as error:
                made.append(error)

        thread = threading.Thread(target=make)  # it ends there: no thread of the test's is ever elsewhere
        thread.start()
        thread.join()
        if made:
            raise made[0]
        self.descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    def run(self, work: Callable[[], Any]) -> Any:
        """`work()` inside."""
        return inside(self.descriptor, work)
