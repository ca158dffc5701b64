"""Why the kernel dropped packets while ours were lost, as it tells its tracers; without it a drop that no rule and no
route explains would leave nothing behind.

It names no network namespace and no address: whoever's packets they were. So it is evidence beside other, never a
cause. Only where the kernel lets this process trace: as root of the initial user namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import secrets
import stat
import threading
from collections import Counter
from pathlib import Path

from facts import DropReason, DropReasons, Fact

PREFIX = "calico-why-"
LARGEST = 256 << 10  # bytes of the trace that are read
BUFFER_KB = "32"  # for each processor: some 250 drops
MOST_PROCESSORS = 32  # a tracer's buffers are 1.4 MiB for each until it is told to do with less
EVENT = "events/skb/kfree_skb"
LINE = re.compile(r"kfree_skb: .*?protocol=(\d+) location=(\S+) reason: (\S+)")
IP = {0x0800, 0x86DD}
# What a socket that listens to all packets did not want, and what a closed one had not read: copies, or no longer on
# their way. Most of them are of our own probes, and would stand before what matters.
OF_NO_FLOW = re.compile(r"SOCKET_FILTER (raw|rawv6|packet|tpacket)_rcv|NO_SOCKET ping_rcv|QUEUE_PURGE ")
PLACES_LEFT_OUT = re.compile(r"\+0x[0-9a-f]+(/0x[0-9a-f]+)?$")
MOST_TOLD = 8
ENOUGH_S = 0.3  # for one step: an answer does not wait longer for a kernel that is busy
BEFORE_S = 0.1  # the same for the one that packets wait for: it is done in 20 ms where no other tracer is just removed
# linux/mount.h, and the same numbers on every machine
FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432
FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC, CREATE = 1, 1, 6

_libc = ctypes.CDLL(None, use_errno=True)
_alone = threading.Lock()  # the kernel makes and removes one tracer at a time, too


class Tracing:
    """A tracer of this probe's own, to be opened before packets are sent, and to be closed. It never raises."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self._root = -1  # the tracing file system, mounted nowhere
        self._name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        self._made = False
        self._closed = False

    async def open(self) -> None:
        if self._wanted:
            with contextlib.suppress(OSError, ValueError, TimeoutError):
                # Python 3.11's wait_for may swallow that the question was broken off.
                async with asyncio.timeout(BEFORE_S):
                    await asyncio.to_thread(self._open)

    async def reasons(self, node: str) -> list[Fact]:
        """What was dropped since `open`; nothing where the kernel could not be asked."""
        if not self._made:
            return []
        try:
            async with asyncio.timeout(ENOUGH_S):
                trace = await asyncio.to_thread(self._read)
        except (OSError, TimeoutError):
            return []
        return [DropReasons(node=node, drops=parsed(trace))]

    async def close(self) -> None:
        """What the kernel is still busy with is undone when it is done with it."""
        if self._wanted:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ENOUGH_S):
                    await asyncio.to_thread(self._close)

    def _open(self) -> None:
        with _alone:
            if self._closed or _processors() > MOST_PROCESSORS:
                return
            self._root = mounted()
            self._at().mkdir(0o700)
            self._made = True
            self._write("buffer_size_kb", BUFFER_KB)
            self._write(f"{EVENT}/enable", "1")

    def _read(self) -> str:
        self._write("tracing_on", "0")
        with self._at("trace").open(encoding="ascii", errors="replace") as trace:
            return trace.read(LARGEST)

    def _close(self) -> None:
        with _alone:
            self._closed = True
            if self._made:
                self._made = False
                with contextlib.suppress(OSError):
                    self._write(f"{EVENT}/enable", "0")
                    self._at().rmdir()
            if self._root >= 0:
                os.close(self._root)
                self._root = -1

    def _at(self, name: str = "") -> Path:
        return Path(f"/proc/self/fd/{self._root}/instances", self._name, name)

    def _write(self, name: str, value: str) -> None:
        self._at(name).write_text(value)


def sweep() -> None:
    """Removes tracers of probes that were killed. For when a probe starts."""
    try:
        root = mounted()
    except OSError:
        return
    with contextlib.suppress(OSError):
        for one in Path(f"/proc/self/fd/{root}/instances").glob(f"{PREFIX}*"):
            pid = one.name.removeprefix(PREFIX).partition("-")[0]
            if pid == str(os.getpid()) or not Path("/proc", pid).exists():
                with contextlib.suppress(OSError):
                    (one / EVENT / "enable").write_text("0")
                    one.rmdir()
    os.close(root)


def mounted() -> int:
    """A descriptor of the tracing file system: nobody else sees that it is mounted, and closing it unmounts it.

    Raises OSError where this process may not.
    """
    context = _call(FSOPEN, b"tracefs", FSOPEN_CLOEXEC)
    try:
        _call(FSCONFIG, context, CREATE, None, None, 0)
        root = _call(FSMOUNT, context, FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)
    if not stat.S_ISDIR(os.fstat(root).st_mode):
        os.close(root)
        raise OSError("the tracing file system is no directory")
    return root


def parsed(trace: str) -> tuple[DropReason, ...]:
    """The drops of IP packets in a trace that are of a flow, the most frequent first. A kernel before 5.17 tells no
    reasons."""
    counted: Counter[tuple[str, str]] = Counter()
    for line in trace.splitlines():
        found = LINE.search(line)
        if found and int(found[1]) in IP:
            reason, place = found[3], PLACES_LEFT_OUT.sub("", found[2])
            if not OF_NO_FLOW.match(f"{reason} {place}"):
                counted[reason, place] += 1
    return tuple(
        DropReason(reason=reason, place=place, count=count)
        for (reason, place), count in sorted(counted.items(), key=lambda one: (-one[1], one[0]))[:MOST_TOLD]
    )


def _processors() -> int:
    """The most there can be: each gets a buffer, whether it is there or not."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().rpartition("-")[2]
    return int(last.rpartition(",")[2]) + 1


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
