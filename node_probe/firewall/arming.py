"""Tells the kernel which packets to follow, by a table of our own; without it a trace would need `nft` on every node.

The table holds nothing that could stop a packet. Its owner is the socket it was made by: the kernel removes it when
that is closed, also after `kill -9`. A kernel before 5.12 knows no owners; there the next probe sweeps what was left.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from node_probe.netlink_messages import attribute, attributes
from node_probe.nfnetlink import (
    DUMP,
    FAMILIES,
    NETDEV,
    NEW_RULE,
    NFTABLES,
    commit,
    dumped,
    message,
    nested,
    netfilter,
    text,
    u32,
    u64,
)
from node_probe.ours import Bytes, Followed

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
# The same at each device: what comes in is met behind tc and before the node looks at it, what goes out before tc.
COMES_IN, CAME_IN = "ingress_", "passed_ingress_"
GOES_OUT, WENT_OUT = "egress_", "passed_egress_"
AT_DEVICES = {COMES_IN: (0, FIRST), CAME_IN: (0, LAST), GOES_OUT: (1, FIRST), WENT_OUT: (1, LAST)}  # NF_NETDEV_*
ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
FOLLOWED = "follow_"
AT_ONCE, EACH_SECOND = 20, 20  # packets of one trace; of a busy flow no more are followed
OF_TRAINS = 240  # at once, of what is known to be our own: a limit ends the last of them
# linux/netfilter/nf_tables.h
NEW_TABLE, GET_TABLE, DELETE_TABLE, NEW_CHAIN = 0, 1, 2, 3
CREATE, APPEND = 0x400, 0x800
TABLE_NAME, TABLE_FLAGS, TABLE_OWNER, OWNED = 1, 2, 7, 0x2
JUMP, REGISTER = -3, 1
PROTOCOL, L4PROTO, NFTRACE = 1, 16, 12
# Of a kernel that knows no owners, no rules at devices, or none of what goes out; and of a device that is gone.
REFUSED = (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.ENOENT, errno.ENODEV)


class OwnTable:
    """In the network namespace the calling thread is in now, until closed."""

    def __init__(self, name: str, wanted: Sequence[Followed], family: int, devices: Sequence[str] = ()) -> None:
        """name: begins with NAME. family: 4 or 6, of every packet. devices: at which packets are followed, too.

        Raises OSError (EPERM: NET_ADMIN is missing), ValueError for no address. Where the kernel has no rules at
        devices, or a device is gone, `at_devices` lacks what could not be had.
        """
        self.name = name
        self.at_devices: tuple[str, ...] = ()  # of AT_DEVICES
        self.devices = tuple(devices)
        content = list(_content(self.name, wanted, family))
        self._socket = netfilter()
        try:
            self._put(content, wanted, family)
        except BaseException:
            self._socket.close()
            raise

    def _put(self, content: list[tuple[int, int, bytes]], wanted: Sequence[Followed], family: int) -> None:
        kinds = (tuple(AT_DEVICES), (COMES_IN, CAME_IN)) if self.devices else ()
        refused = OSError()
        for self._owned in (True, False):
            table = text(TABLE_NAME, self.name) + (u32(TABLE_FLAGS, OWNED) if self._owned else b"")
            for self.at_devices in (*kinds, ()):
                parts = {FAMILIES[family]: [(NEW_TABLE, CREATE, table), *content]}
                if self.at_devices:
                    more = _at_devices(self.name, wanted, family, self.devices, self.at_devices)
                    parts[NETDEV] = [(NEW_TABLE, CREATE, table), *more]
                self._families = tuple(parts)
                try:
                    commit(self._socket, *parts.items())
                    return
                except OSError as error:
                    if error.errno not in REFUSED:
                        raise
                    refused = error
        raise refused

    def chains_at_devices(self) -> Iterator[tuple[str, str]]:
        """Name and hook, "ingress" or "egress", of each."""
        for kind in self.at_devices:
            for device in self.devices:
                yield kind + device, "egress" if AT_DEVICES[kind][0] else "ingress"

    def close(self) -> None:
        for family in [] if self._owned else self._families:
            with contextlib.suppress(OSError):  # somebody flushed all tables
                commit(self._socket, (family, [(DELETE_TABLE, 0, text(TABLE_NAME, self.name))]))
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
        commit(wire, (FAMILIES[4], [(NEW_TABLE, CREATE, text(TABLE_NAME, name))]))


def unmark(name: str, family: int = FAMILIES[4]) -> None:
    """Removes a table. Raises OSError."""
    with netfilter() as wire:
        commit(wire, (family, [(DELETE_TABLE, 0, text(TABLE_NAME, name))]))


def _content(table: str, wanted: Sequence[Followed], family: int) -> Iterator[tuple[int, int, bytes]]:
    for name, (hook, priority) in CHAINS.items():
        yield _chain(table, name, hook, priority)
    for number, one in enumerate(wanted):
        yield from _following(table, number, one)
        for hook in MARKS_AT:
            yield from _marks(table, hook, number, one, hook, family)


def _at_devices(
    table: str, wanted: Sequence[Followed], family: int, devices: Sequence[str], kinds: Sequence[str]
) -> Iterator[tuple[int, int, bytes]]:
    for kind in kinds:
        hook, priority = AT_DEVICES[kind]
        for device in devices:
            at = nested(4, u32(1, hook), u32(2, priority & 0xFFFFFFFF), text(3, device))
            yield NEW_CHAIN, CREATE, text(1, table) + text(3, kind + device) + at + text(7, "filter")
    for number, one in enumerate(wanted):
        yield from _following(table, number, one)
        for device in devices:
            yield from _marks(table, COMES_IN + device, number, one, "prerouting", family, of_any=True)


def _following(table: str, number: int, one: Followed) -> Iterator[tuple[int, int, bytes]]:
    chain = f"{FOLLOWED}{number}"
    yield _chain(table, chain)
    limit = _limit(OF_TRAINS if one.trace.train else AT_ONCE)
    yield _rule(table, chain, [limit, _immediate(b"\x01"), _expression("meta", u32(2, NFTRACE), u32(3, REGISTER))])


def _marks(
    table: str, chain: str, number: int, one: Followed, hook: str, family: int, *, of_any: bool = False
) -> Iterator[tuple[int, int, bytes]]:
    """hook: as it would look there. of_any: the chain meets packets of other families, too."""
    protocol, ways = one.at(hook, family)
    for conditions in ways:
        met = [_expression("meta", u32(1, REGISTER), u32(2, PROTOCOL)), _compared(ETHERTYPES[family])] if of_any else []
        met += [_expression("meta", u32(1, REGISTER), u32(2, L4PROTO)), _compared(bytes([protocol]))]
        for condition in conditions:
            met += _met(condition)
        verdict = nested(2, u32(1, JUMP & 0xFFFFFFFF), text(2, f"{FOLLOWED}{number}"))
        yield _rule(table, chain, [*met, _expression("immediate", u32(1, 0), nested(2, verdict))])


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


def _limit(at_once: int) -> bytes:
    return _expression("limit", u64(1, EACH_SECOND), u64(2, 1), u32(3, at_once), u32(4, 0))
