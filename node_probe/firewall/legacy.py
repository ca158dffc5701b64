"""Reads what iptables-legacy's own tracer says of packets; without it a trace ends with "accept" where they died.

A packet that is marked for nftables' trace is marked for the tracer of iptables-legacy, too, so no rule of its tables
is touched. The kernel hands what that tracer says to one logger of each family. For the moment this is ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from node_probe import nfnetlink
from node_probe.firewall import arming
from node_probe.netlink_messages import attribute, attributes

GROUP = 0  # the tracer speaks to no other
SNAP = 128  # bytes of a packet: its headers
AT_ONCE = 200
BUFFER = 4 << 20
TRACED = re.compile(r"TRACE: ([^:]+):(.+):(rule|return|policy):(\d+) ?")
# linux/netfilter/nfnetlink_log.h
PACKET, CONFIG = 4 << 8, 4 << 8 | 1
COMMAND, MODE, QUEUE = 1, 2, 5
BIND, FAMILY_BIND, FAMILY_UNBIND = 1, 3, 4
COPY_PACKET = 2
PAYLOAD, PREFIX = 9, 10
OURS, NONE = "nfnetlink_log", "NONE"


class CannotLog(Exception):
    """What iptables-legacy's tracer says cannot be had. Its text says why."""


@dataclass(frozen=True, slots=True)
class Logged:
    """One line of the tracer."""

    table: str
    chain: str
    kind: str  # "rule" | "return" | "policy"
    number: int  # of the rule in its chain, from 1; one more than the last one's for the others
    packet: bytes  # the beginning, from the IP header on


Met = Callable[[Logged], None]


class Log:
    """The tracer's lines, for any number of questions at a time. For one event loop."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._listeners: list[Met] = []
        self._users: Counter[int] = Counter()  # by family
        self._before: dict[int, str] = {}  # loggers to be put back

    def join(self, family: int, met: Met) -> None:
        """Every line goes to `met` until it leaves. family: 4 or 6. Raises CannotLog."""
        try:
            if self._socket is None:
                self._open()
            if not self._users[family]:
                self._take(family)
        except OSError as error:
            self._release()
            raise CannotLog(f"the kernel refused: {error.strerror or error}") from error
        except CannotLog:
            self._release()
            raise
        self._users[family] += 1
        self._listeners.append(met)

    def leave(self, family: int, met: Met) -> None:
        self._listeners.remove(met)
        self._users[family] -= 1
        if not self._users[family] and family in self._before:
            with contextlib.suppress(OSError):  # the mark stays, and the next probe tries again
                switch(family, self._before[family])
                arming.unmark(_mark(family, self._before[family]))
            del self._before[family]
        self._release()

    def _open(self) -> None:
        wire = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, nfnetlink.NETLINK_NETFILTER)
        self._socket = wire
        wire.bind((0, 0))
        wire.settimeout(nfnetlink.ANSWER_S)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        if code := _configure(wire, COMMAND, bytes([BIND])):
            taken = "another program reads the log of packets" if code == errno.EBUSY else os.strerror(code)
            raise CannotLog(taken)
        _configure(wire, MODE, struct.pack("!IBB", SNAP, COPY_PACKET, 0))
        _configure(wire, QUEUE, struct.pack("!I", 1))  # at once, not in a second
        wire.setblocking(False)
        asyncio.get_running_loop().add_reader(wire, self.drain)

    def _take(self, family: int) -> None:
        before = _logger(family).read_text().strip()
        if before == OURS:
            return
        if before != NONE and not os.access(_logger(family), os.W_OK):
            raise CannotLog(f"the kernel's logger of packets, {before}, could not be put back")
        arming.mark(_mark(family, before))
        try:
            switch(family, OURS)
        except OSError:
            arming.unmark(_mark(family, before))
            raise
        self._before[family] = before

    def _release(self) -> None:
        if self._socket and not self._listeners:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def drain(self) -> None:
        """Hands on what waits to be read."""
        for _ in range(AT_ONCE):
            if self._socket is None:
                return
            try:
                data = self._socket.recv(1 << 16)
            except OSError:  # nothing more, or too much to keep
                return
            for kind, _, body in nfnetlink.messages(data):
                has = attributes(body) if kind == PACKET else {}
                prefix = has.get(PREFIX, b"").rstrip(b"\0").decode(errors="replace")
                if match := TRACED.match(prefix):
                    line = Logged(match[1], match[2], match[3], int(match[4]), has.get(PAYLOAD, b""))
                    for met in list(self._listeners):
                        met(line)


def holds_tables(family: int) -> bool:
    """Whether iptables-legacy has tables here. Asking by its own tool would make them."""
    names = Path("/proc/thread-self/net", "ip6_tables_names" if family == 6 else "ip_tables_names")
    try:
        return bool(names.read_text().strip())
    except FileNotFoundError:
        return False
    except OSError:
        return True  # whoever may not read this gets a reason from the tool itself


def _mark(family: int, logger: str) -> str:
    return f"{arming.LOG_NAME}{family}_{logger}"


def restore(mark: str) -> None:
    """Puts the logger back that the name of a mark tells. Raises OSError."""
    family, _, logger = mark.removeprefix(arming.LOG_NAME).partition("_")
    if family in ("4", "6") and logger:
        switch(int(family), logger)


def switch(family: int, logger: str) -> None:
    """Who is told what the kernel logs of packets: OURS, NONE or another one of the kernel's. Raises OSError."""
    if logger not in (OURS, NONE):
        _logger(family).write_text(logger)
        return
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, nfnetlink.NETLINK_NETFILTER) as wire:
        wire.bind((0, 0))
        wire.settimeout(nfnetlink.ANSWER_S)
        command = bytes([FAMILY_BIND if logger == OURS else FAMILY_UNBIND])
        if code := _configure(wire, COMMAND, command, nfnetlink.FAMILIES[family]):
            raise OSError(code, os.strerror(code))


def _configure(wire: socket.socket, kind: int, value: bytes, family: int = 0) -> int:
    """The kernel's answer: 0 or an errno."""
    wire.send(nfnetlink.message(CONFIG, nfnetlink.ACK, 1, attribute(kind, value), family, GROUP))
    return nfnetlink.acknowledged(wire)


def _logger(family: int) -> Path:
    return Path("/proc/sys/net/netfilter/nf_log", str(nfnetlink.FAMILIES[family]))
