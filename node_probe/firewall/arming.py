"""Tells the kernel which packets to follow, by a table of our own; without it a trace would need `nft` on every node.

The table holds nothing that could stop a packet. Its owner is the socket it was made by: the kernel removes it when
that is closed, also after `kill -9`. A kernel before 5.12 knows no owners; there the next probe sweeps what was left.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

import msgspec

from facts import Trace
from node_probe.packets import SMALL

NAME = "why_trace_"
LOG_NAME = "why_log_"  # a table that says which logger is to be put back
FIRST, LAST = -(2**31) + 1, 2**31 - 2  # priorities: before everybody's rules, and behind them
HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
PASSED_PREROUTING = "passed_prerouting"
LEFT_BY = ("passed_input", "passed_postrouting")  # nothing of a firewall comes behind
# A packet that was marked tells by them how far it came, whether or not the node has rules of its own there.
CHAINS = {
    "prerouting": ("prerouting", FIRST),  # fragments are not put together yet; what is followed is small
    PASSED_PREROUTING: ("prerouting", LAST),
    "reached_input": ("input", FIRST),
    "passed_input": ("input", LAST),
    "reached_forward": ("forward", FIRST),
    "output": ("output", FIRST),
    "reached_postrouting": ("postrouting", FIRST),
    "passed_postrouting": ("postrouting", LAST),
}
MARKS_AT = ("prerouting", "output")
FOLLOWED = "follow_"
AT_ONCE, EACH_SECOND = 20, 20  # packets of one trace; of a busy flow no more are followed
MOST = 16  # traces of an ask
ANSWER_S = 2.0
# linux/netfilter.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
NETLINK_NETFILTER, NFTABLES = 12, 10
BATCH_BEGIN, BATCH_END, ERROR, DONE = 16, 17, 2, 3
NEW_TABLE, GET_TABLE, DELETE_TABLE, NEW_CHAIN, NEW_RULE = 0, 1, 2, 3, 6
REQUEST, ACK, DUMP, CREATE, APPEND, NESTED = 0x1, 0x4, 0x300, 0x400, 0x800, 0x8000
TABLE_NAME, TABLE_FLAGS, TABLE_OWNER, OWNED = 1, 2, 7, 0x2
FAMILIES = {4: 2, 6: 10}
JUMP, REGISTER = -3, 1
NETWORK, TRANSPORT = 1, 2
L4PROTO, NFTRACE = 16, 12
PROTOCOLS = {"tcp": 6, "udp": 17}
ICMP = {4: 1, 6: 58}
IPIP = {4: 4, 6: 41}
ECHO_REQUEST, ECHO_REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
TCP_FLAGS, SYN, SYN_ACK = 0x17, 0x02, 0x12  # of fin, syn, rst, ack
ADDRESSES = {4: 12, 6: 8}  # where the source stands in the IP header; the target is behind it
NEXT_HEADER = {4: 9, 6: 6}
HEADER = {4: 20, 6: 40}
# From the end of the outer IP header to the inner packet: UDP, VXLAN and the inner Ethernet header; nothing.
INSIDE = {"vxlan": 8 + 8 + 14, "ipip": 0}
OURS = SMALL[:16]  # a load takes sixteen bytes
MESSAGE = struct.Struct("=IHHIIBBH")  # nlmsghdr, nfgenmsg


@dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes of a packet that must be these, where the mask has a bit."""

    header: int  # counted from the start of its NETWORK or TRANSPORT header
    offset: int
    value: bytes
    mask: bytes = b""

    def moved(self, header: int, offset: int) -> Bytes:
        return Bytes(header, self.offset + offset, self.value, self.mask)


@dataclass(frozen=True, slots=True)
class Followed:
    """Packets the kernel is told to follow: a leg's own ones, or the tunnel's around them."""

    trace: Trace
    outer: bool

    def at(self, hook: str, family: int) -> tuple[int, list[list[Bytes]]]:
        """Which packets those are at "prerouting" or "output": protocol number, and what else must hold, in any of some
        ways."""
        if not self.outer:
            kind = _kind(self.trace, family)
            return _protocol(self.trace, family), [[*_pair(one, family), *kind] for one in _as_seen(self.trace)]
        peer = _address(self.trace.peer)
        place = ADDRESSES[family] + (len(peer) if hook == "output" else 0)
        around = [Bytes(NETWORK, place, peer)]
        if self.trace.encapsulation != "ipip":
            around.append(Bytes(TRANSPORT, 2, self.trace.tunnel_port.to_bytes(2, "big")))
        protocol = IPIP[family] if self.trace.encapsulation == "ipip" else PROTOCOLS["udp"]
        if self.trace.encapsulation not in INSIDE:  # sealed
            return protocol, [around]
        return protocol, [around + self.inside(family)]

    def inside(self, family: int) -> list[Bytes]:
        """What must hold of the packet within VXLAN or IPIP, whichever nodes it goes between."""
        start = INSIDE[self.trace.encapsulation]
        within = [
            *_pair(self.trace, family),
            Bytes(NETWORK, NEXT_HEADER[family], bytes([_protocol(self.trace, family)])),
        ]
        kind = [one.moved(TRANSPORT, start + HEADER[family]) for one in _kind(self.trace, family)]
        return [*(one.moved(TRANSPORT, start) for one in within), *kind]


def followed(traces: Sequence[Trace]) -> list[Followed]:
    """Raises ValueError for what cannot be followed."""
    if len(traces) > MOST:
        raise ValueError(f"{len(traces)} legs at a time are too many to follow; {MOST} are not")
    found = []
    for trace in traces:
        if trace.protocol not in ("icmp", "tcp", "udp"):
            raise ValueError(f"{trace.protocol} packets cannot be followed")
        if trace.encapsulation not in ("", "direct", *INSIDE, "wireguard"):
            raise ValueError(f"{trace.encapsulation} packets cannot be followed")
        found.append(Followed(trace, outer=False))
        if trace.encapsulation not in ("", "direct") and trace.peer:
            found.append(Followed(trace, outer=True))
    return found


class OwnTable:
    """In the network namespace the calling thread is in now, until closed."""

    def __init__(self, name: str, wanted: Sequence[Followed], family: int) -> None:
        """name: begins with NAME. family: 4 or 6, of every packet. Raises OSError (EPERM: NET_ADMIN is missing),
        ValueError for no address."""
        self.name = name
        self._family = FAMILIES[family]
        content = list(_content(self.name, wanted, family))
        self._socket = netfilter()
        self._owned = True
        try:
            try:
                self._put(OWNED, content)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
                self._owned = False
                self._put(0, content)
        except BaseException:
            self._socket.close()
            raise

    def _put(self, flags: int, content: list[tuple[int, int, bytes]]) -> None:
        table = text(TABLE_NAME, self.name) + (u32(TABLE_FLAGS, flags) if flags else b"")
        commit(self._socket, [(NEW_TABLE, CREATE, table), *content], self._family)

    def close(self) -> None:
        if not self._owned:
            with contextlib.suppress(OSError):  # somebody flushed all tables
                commit(self._socket, [(DELETE_TABLE, 0, text(TABLE_NAME, self.name))], self._family)
        self._socket.close()


@dataclass(frozen=True, slots=True)
class Left:
    """A table of ours that a probe left behind."""

    family: int  # of nfnetlink
    name: str


def left() -> list[Left]:
    """Tables of ours that no socket owns. Raises OSError."""
    with netfilter() as wire:
        wire.send(message(NFTABLES << 8 | GET_TABLE, DUMP, 1, b""))
        found = []
        for family, body in dumped(wire, NFTABLES << 8 | NEW_TABLE):
            has = attributes(body)
            name = has.get(TABLE_NAME, b"").rstrip(b"\0").decode(errors="replace")
            if name.startswith((NAME, LOG_NAME)) and TABLE_OWNER not in has:
                found.append(Left(family, name))
        return found


def mark(name: str) -> None:
    """An empty table that stays until `unmark`, whatever happens to this program. Raises OSError."""
    with netfilter() as wire:
        commit(wire, [(NEW_TABLE, CREATE, text(TABLE_NAME, name))], FAMILIES[4])


def unmark(name: str, family: int = FAMILIES[4]) -> None:
    """Removes a table. Raises OSError."""
    with netfilter() as wire:
        commit(wire, [(DELETE_TABLE, 0, text(TABLE_NAME, name))], family)


def _content(table: str, wanted: Sequence[Followed], family: int) -> Iterator[tuple[int, int, bytes]]:
    for name, (hook, priority) in CHAINS.items():
        yield _chain(table, name, hook, priority)
    for number, one in enumerate(wanted):
        chain = f"{FOLLOWED}{number}"
        yield _chain(table, chain)
        yield _rule(
            table, chain, [_limit(), _immediate(b"\x01"), _expression("meta", u32(2, NFTRACE), u32(3, REGISTER))]
        )
        for hook in MARKS_AT:
            protocol, ways = one.at(hook, family)
            for conditions in ways:
                met = [_expression("meta", u32(1, REGISTER), u32(2, L4PROTO)), _compared(bytes([protocol]))]
                for condition in conditions:
                    met += _met(condition)
                verdict = nested(2, u32(1, JUMP & 0xFFFFFFFF), text(2, chain))
                yield _rule(table, hook, [*met, _expression("immediate", u32(1, 0), nested(2, verdict))])


# -- which packets


def _protocol(trace: Trace, family: int) -> int:
    return PROTOCOLS.get(trace.protocol, ICMP[family])


def _pair(trace: Trace, family: int) -> list[Bytes]:
    return [Bytes(NETWORK, ADDRESSES[family], _address(trace.source) + _address(trace.target))]


def _as_seen(trace: Trace) -> list[Trace]:
    if not trace.translated:
        return [trace]
    end = {"target": trace.translated} if trace.reply else {"source": trace.translated}
    return [trace, msgspec.structs.replace(trace, **end)]


def _kind(trace: Trace, family: int) -> list[Bytes]:
    """A fresh packet of the asked kind, or the first answer to one; of pings and datagrams only this program's."""
    if trace.protocol == "icmp":
        kind = (ECHO_REPLY if trace.reply else ECHO_REQUEST)[family]
        return [Bytes(TRANSPORT, 0, bytes([kind])), Bytes(TRANSPORT, 8, OURS)]
    port = Bytes(TRANSPORT, 0 if trace.reply else 2, trace.port.to_bytes(2, "big"))
    if trace.protocol == "tcp":
        flags = SYN_ACK if trace.reply else SYN
        return [port, Bytes(TRANSPORT, 13, bytes([flags]), bytes([TCP_FLAGS]))]
    return [port] if trace.reply else [port, Bytes(TRANSPORT, 8, OURS)]


def _address(address: str) -> bytes:
    return ip_address(address).packed


# -- netlink


def netfilter() -> socket.socket:
    """A socket that talks to nf_tables of this network namespace. Raises OSError."""
    wire = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    wire.bind((0, 0))
    wire.settimeout(ANSWER_S)
    return wire


def commit(wire: socket.socket, messages: Sequence[tuple[int, int, bytes]], family: int) -> None:
    """All of it or nothing: kind, flags, body of each. Raises OSError."""
    batch = message(BATCH_BEGIN, 0, 0, b"", resource=NFTABLES)
    for number, (kind, flags, body) in enumerate(messages, 1):
        batch += message(NFTABLES << 8 | kind, flags | ACK, number, body, family)
    batch += message(BATCH_END, 0, len(messages) + 1, b"", resource=NFTABLES)
    wire.send(batch)
    refused = 0
    for _ in range(len(messages)):
        code = acknowledged(wire)
        refused = refused or code
        if code in (errno.EPERM, errno.EACCES):  # said once, of the whole batch
            break
    if refused:
        raise OSError(refused, os.strerror(refused))


def acknowledged(wire: socket.socket) -> int:
    """The errno of the next answer to a request that was to be acknowledged; 0: done. Raises OSError, TimeoutError."""
    while True:
        data = wire.recv(1 << 16)
        _, kind = struct.unpack_from("=IH", data)
        if kind == ERROR:
            return -int(struct.unpack_from("=i", data, 16)[0])


def dumped(wire: socket.socket, kind: int) -> Iterator[tuple[int, bytes]]:
    """Family and body of every message of that kind, until the dump is done. Raises OSError, TimeoutError."""
    while True:
        for answer, family, body in messages(wire.recv(1 << 16)):
            if answer == DONE:
                return
            if answer == ERROR:
                code = -int(struct.unpack_from("=i", body)[0])
                raise OSError(code, os.strerror(code))
            if answer == kind:
                yield family, body


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, nfgenmsg's family and body (behind nfgenmsg, but of an error or an end: all) of what one read gave."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        plain = kind in (ERROR, DONE) or length < MESSAGE.size
        yield kind, 0 if plain else data[offset + 16], data[offset + (16 if plain else MESSAGE.size) : offset + length]
        offset += max(length + 3 & ~3, 16)


def message(kind: int, flags: int, number: int, body: bytes, family: int = 0, resource: int = 0) -> bytes:
    length = MESSAGE.size + len(body)
    return MESSAGE.pack(length, kind, REQUEST | flags, number, 0, family, 0, socket.htons(resource)) + body


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    found, offset = {}, 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += length + 3 & ~3
    return found


def nested(kind: int, *inside: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(inside))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(4, "big"))


def _u64(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(8, "big"))


def _chain(table: str, name: str, hook: str = "", priority: int = 0) -> tuple[int, int, bytes]:
    body = text(1, table) + text(3, name)
    if hook:
        body += nested(4, u32(1, HOOKS[hook]), u32(2, priority & 0xFFFFFFFF)) + text(7, "filter")
    return NEW_CHAIN, CREATE, body


def _rule(table: str, chain: str, expressions: Sequence[bytes]) -> tuple[int, int, bytes]:
    return NEW_RULE, CREATE | APPEND, text(1, table) + text(2, chain) + nested(4, *expressions)


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *attributes))


def _met(condition: Bytes) -> list[bytes]:
    """Loads the bytes, sixteen at most at a time, and compares them."""
    made = []
    for start in range(0, len(condition.value), 16):
        value, mask = condition.value[start : start + 16], condition.mask[start : start + 16]
        where = u32(2, condition.header), u32(3, condition.offset + start), u32(4, len(value))
        made.append(_expression("payload", u32(1, REGISTER), *where))
        if mask:
            both = nested(4, attribute(1, mask)), nested(5, attribute(1, bytes(len(mask))))
            made.append(_expression("bitwise", u32(1, REGISTER), u32(2, REGISTER), u32(3, len(mask)), *both))
        made.append(_compared(value))
    return made


def _compared(value: bytes) -> bytes:
    return _expression("cmp", u32(1, REGISTER), u32(2, 0), nested(3, attribute(1, value)))


def _immediate(value: bytes) -> bytes:
    return _expression("immediate", u32(1, REGISTER), nested(2, attribute(1, value)))


def _limit() -> bytes:
    return _expression("limit", _u64(1, EACH_SECOND), _u64(2, 1), u32(3, AT_ONCE), u32(4, 0))
