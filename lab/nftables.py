"""Writes nftables tables, whole or in part, in nft's nouns; there is no nft program where the lab runs.

Everything acts in the network namespace of the calling thread. `Kernel.flush_firewall` undoes it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from node_probe.netlink_messages import attribute
from node_probe.nfnetlink import (
    ACK,
    BATCH_BEGIN,
    BATCH_END,
    ERROR,
    FAMILIES,
    NETDEV,
    NETLINK_NETFILTER,
    NEW_RULE,
    NFTABLES,
    message,
    nested,
    text,
    u32,
)

# linux/netfilter.h, linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h
NEW_TABLE, DELETE_TABLE, NEW_CHAIN, NEW_SET, NEW_ELEMENT = 0, 2, 3, 9, 12
DELETE_CHAIN, DELETE_RULE, DELETE_SET, DELETE_ELEMENT = 5, 8, 11, 14
CREATE, APPEND = 0x400, 0x800
ARP = 3  # a family that a table can be of
HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4, "ingress": 0}
ARP_HOOKS = {"input": 0, "output": 1}
VERDICTS = {"drop": 0, "accept": 1, "continue": -1, "jump": -3, "goto": -4, "return": -5}
VERDICT, FIRST = 0, 8  # registers; from FIRST on of four bytes each
ANONYMOUS, CONSTANT, INTERVAL, MAP = 0x1, 0x2, 0x4, 0x8
INTERVAL_END = 1
OF_THE_HOST = b"\0\4" + struct.pack("=I", 1)  # nft's note beside a set: in which byte order its keys are
# How nft prints the keys of a set; of several fields the numbers stand side by side, six bits each.
ADDRESS_TYPES, PROTOCOL_TYPE, SERVICE_TYPE, INTERFACE_TYPE = {4: 7, 6: 8}, 12, 13, 41
VERDICT_TYPE = 0xFFFFFF00
NAMELESS, NAMELESS_SET = "__map%d", "__set%d"  # the kernel puts a number in
PROTOCOL, NFPROTO, L4PROTO, MARK = 1, 15, 16, 3
ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
INCOMING, OUTGOING, INTERFACE_LENGTH = 6, 7, 16  # names of devices
CT_STATE, CT_STATUS = 0, 2
INVALID, ESTABLISHED, RELATED, NEW = 1, 2, 4, 8  # ct state
TRANSLATED = 0x20  # ct status: its destination was
FIB_SOURCE, FIB_DESTINATION, FIB_MARK, FIB_CAME_BY, FIB_LEAVES_BY = 1, 2, 4, 8, 16
FIB_OUTGOING, FIB_TYPE = 1, 3
LOCAL = 2  # fib: an address of the node's own

Network = IPv4Network | IPv6Network
Message = tuple[int, int, bytes, int]  # kind, flags, body, family


class Table:
    """Gathers what the table is to hold; `write` puts it in place of what was there, `amend` adds it to that.

    With a device it is about packets of any family that come in by it (hook "ingress"), before the node looks at them;
    of ARP about ARP; of INET about both families, so that `of_ip` is to come before any address.
    """

    def __init__(self, family: int, name: str, device: str = "", *, of: int = 0) -> None:
        self.family = family
        self.name = name
        self.device = device
        self.of = of
        self.length = 4 if family == 4 else 16  # of an address
        self._declared: list[tuple[int, int, bytes]] = []  # chains and sets
        self._elements: list[tuple[int, int, bytes]] = []  # their verdicts lead to chains
        self._rules: list[tuple[int, int, bytes]] = []
        self._sets = 0

    # ---- what it holds

    def chain(
        self, name: str, hook: str = "", kind: str = "filter", priority: int = 0, *, policy: str = "accept"
    ) -> None:
        """A chain; one with a hook is entered by packets there, and its policy is for those no rule decides on."""
        body = text(1, self.name) + text(3, name)
        if hook:
            at = [text(3, self.device)] if self.device else []
            number = (ARP_HOOKS if self.of == ARP else HOOKS)[hook]
            body += nested(4, u32(1, number), u32(2, priority & 0xFFFFFFFF), *at) + text(7, kind)
            body += u32(5, VERDICTS[policy])
        self._declared.append((NEW_CHAIN, CREATE, body))

    def set(self, name: str, key_length: int, elements: Iterable[bytes], *, key_type: int = 0) -> int:
        """A set of keys; its number is what `lookup` takes. key_type: how nft is to print a key."""
        self._declared.append(self._set(name, 0, key_length, key_type))
        self._elements += self._put(name, [_key(one) for one in elements])
        return self._sets

    def networks(self, name: str, members: Iterable[Network]) -> int:
        """A set of networks of the table's family, none within another; its number is what `lookup` takes."""
        self._declared.append(self._set(name, INTERVAL, self.length, ADDRESS_TYPES[self.family]))
        self._elements += self._put(name, [one for member in members for one in _interval(member)])
        return self._sets

    def verdict_map(
        self, name: str, key_length: int, elements: Iterable[tuple[bytes, str, str, str]], *, key_type: int = 0
    ) -> int:
        """Key -> verdict, chain ("" for none), comment; its number is what `lookup` takes."""
        self._declared.append(self._set(name, MAP, key_length, key_type))
        self._elements += self._put(name, _verdicts(elements))
        return self._sets

    def choice(self, elements: Iterable[tuple[bytes, str, str, str]]) -> bytes:
        """Verdict by what was loaded, of four bytes, in the very rule; that rule is to be the next."""
        self._rules.append(self._set(NAMELESS, MAP | ANONYMOUS | CONSTANT, 4))
        self._rules += self._put(NAMELESS, _verdicts(elements))
        return lookup(self._sets, NAMELESS, verdict=True)

    def one_of_ports(self, ranges: Iterable[tuple[int, int]], *, inside: bool = True) -> bytes:
        """Is the loaded port within one of these (first, last)? In the very rule; that rule is to be the next."""
        ends = [end for first, last in ranges for end in (_key(first.to_bytes(2, "big")), *_end(last + 1, 2))]
        self._rules.append(self._set(NAMELESS_SET, ANONYMOUS | CONSTANT | INTERVAL, 2, SERVICE_TYPE))
        self._rules += self._put(NAMELESS_SET, ends)
        return lookup(self._sets, NAMELESS_SET, verdict=False, inverted=not inside)

    def _set(self, name: str, flags: int, key_length: int, key_type: int = 0) -> tuple[int, int, bytes]:
        self._sets += 1
        body = text(1, self.name) + text(2, name) + u32(3, flags) + u32(4, key_type) + u32(5, key_length)
        if flags & MAP:
            body += u32(6, VERDICT_TYPE) + u32(7, 0)
        if key_type == INTERFACE_TYPE:
            body += attribute(13, OF_THE_HOST)
        return NEW_SET, CREATE, body + u32(10, self._sets)

    def _put(self, name: str, elements: Sequence[bytes]) -> list[tuple[int, int, bytes]]:
        """Into the set that was made last."""
        body = text(1, self.name) + text(2, name) + nested(3, *elements) + u32(4, self._sets)
        return [(NEW_ELEMENT, CREATE, body)] if elements else []

    def rule(self, chain: str, *expressions: bytes, comment: str = "") -> None:
        body = text(1, self.name) + text(2, chain) + nested(4, *expressions) + _comment(7, comment)
        self._rules.append((NEW_RULE, CREATE | APPEND, body))

    # ---- for `amend`

    def insert(self, chain: str, *expressions: bytes, comment: str = "") -> None:
        """A rule before all others of a chain that is there."""
        self.rule(chain, *expressions, comment=comment)
        kind, _, body = self._rules.pop()
        self._rules.append((kind, CREATE, body))

    def empty(self, chain: str) -> None:
        """Takes every rule out of a chain."""
        self._rules.append((DELETE_RULE, 0, text(1, self.name) + text(2, chain)))

    def clear(self, name: str) -> None:
        """Takes every element out of a set or map, before any is put in."""
        self._declared.append((DELETE_ELEMENT, 0, text(1, self.name) + text(2, name)))

    def remove_chain(self, name: str) -> None:
        """Nothing may lead there any more."""
        self._rules.append((DELETE_CHAIN, 0, text(1, self.name) + text(3, name)))

    def remove_set(self, name: str) -> None:
        """Of a map, too. Nothing may ask for it any more."""
        self._rules.append((DELETE_SET, 0, text(1, self.name) + text(2, name)))

    def take_out(self, name: str, *keys: bytes) -> None:
        """Elements of a set of keys or of a map."""
        body = text(1, self.name) + text(2, name) + nested(3, *map(_key, keys))
        self._rules.append((DELETE_ELEMENT, 0, body))

    def take_out_network(self, name: str, network: Network) -> None:
        body = text(1, self.name) + text(2, name) + nested(3, *_interval(network))
        self._rules.append((DELETE_ELEMENT, 0, body))

    # ---- expressions

    def address(self, which: str, register: int = FIRST) -> bytes:
        """Loads the packet's "source" or "destination"."""
        start = {4: 12, 6: 8}[self.family] + (self.length if which == "destination" else 0)
        return _expression("payload", u32(1, register), u32(2, NETWORK_HEADER), u32(3, start), u32(4, self.length))

    def service(self) -> list[bytes]:
        """Loads destination, protocol and destination port, one after the other."""
        after = FIRST + self.length // 4
        return [self.address("destination"), *self.ports(after)]

    def ports(self, register: int = FIRST, offset: int = 2) -> list[bytes]:
        """Loads protocol and destination port, or at offset 0 the source's."""
        return [
            _expression("meta", u32(1, register), u32(2, L4PROTO)),
            _expression("payload", u32(1, register + 1), u32(2, TRANSPORT_HEADER), u32(3, offset), u32(4, 2)),
        ]

    def within(self, which: str, network: Network, *, inside: bool = True) -> list[bytes]:
        mask = _expression(
            "bitwise",
            u32(1, FIRST),
            u32(2, FIRST),
            u32(3, self.length),
            nested(4, attribute(1, network.netmask.packed)),
            nested(5, attribute(1, bytes(self.length))),
        )
        return [self.address(which), mask, compared(network.network_address.packed, equal=inside)]

    def is_address(self, which: str, address: str) -> list[bytes]:
        return [self.address(which), compared(ip_address(address).packed)]

    def from_the_node(self) -> list[bytes]:
        """Does the packet come from an address of the node itself?"""
        kind = _expression("fib", u32(1, FIRST), u32(2, 3), u32(3, 1))
        return [kind, compared(struct.pack("=I", LOCAL))]

    def translated(self, address: str, port: int) -> list[bytes]:
        """To this destination."""
        return [
            _expression("immediate", u32(1, FIRST), nested(2, attribute(1, ip_address(address).packed))),
            _expression(
                "immediate",
                u32(1, FIRST + self.length // 4),
                nested(2, attribute(1, port.to_bytes(2, "big"))),
            ),
            _expression(
                "nat",
                u32(1, 1),
                u32(2, FAMILIES[self.family]),
                u32(3, FIRST),
                u32(5, FIRST + self.length // 4),
            ),
        ]

    def refused(self) -> bytes:
        """By ICMP port unreachable."""
        return _expression("reject", u32(1, 0), attribute(2, bytes([3 if self.family == 4 else 4])))

    # ---- writing

    def write(self) -> None:
        """Raises OSError."""
        write(self)

    def amend(self) -> None:
        """The table is there already and keeps what it has. Raises OSError."""
        amend(self)

    def remove(self) -> None:
        """Also when there is none. Raises OSError."""
        named = text(1, self.name)
        _send(self._in_family([(NEW_TABLE, CREATE, named), (DELETE_TABLE, 0, named)]))

    def instead(self) -> list[Message]:
        """What puts it in place of what was there."""
        named = text(1, self.name)
        again = [(NEW_TABLE, CREATE, named), (DELETE_TABLE, 0, named), (NEW_TABLE, CREATE, named)]
        return [*self._in_family(again), *self.besides()]

    def besides(self) -> list[Message]:
        """What adds it to what is there."""
        return self._in_family([*self._declared, *self._elements, *self._rules])

    def _in_family(self, messages: Iterable[tuple[int, int, bytes]]) -> list[Message]:
        return [(*message, self._number) for message in messages]

    @property
    def _number(self) -> int:
        return NETDEV if self.device else self.of or FAMILIES[self.family]


def write(*tables: Table) -> None:
    """All of them at one moment, which costs what one costs. Raises OSError."""
    _send([message for table in tables for message in table.instead()])


def amend(*tables: Table) -> None:
    """All of them at one moment, and each keeps what it has. Raises OSError, and nothing has changed then."""
    _send([message for table in tables for message in table.besides()])


def key(*parts: bytes) -> bytes:
    """Of a set over several fields: each fills whole words."""
    return b"".join(part + b"\0" * (-len(part) % 4) for part in parts)


def compared(value: bytes, *, equal: bool = True) -> bytes:
    return _expression("cmp", u32(1, FIRST), u32(2, 0 if equal else 1), nested(3, attribute(1, value)))


def above(value: bytes) -> bytes:
    """Is what was loaded more than this, as the network writes numbers?"""
    return _expression("cmp", u32(1, FIRST), u32(2, 4), nested(3, attribute(1, value)))


def of_family(family: int) -> list[bytes]:
    """Is it a packet of this IP version?"""
    return [_expression("meta", u32(1, FIRST), u32(2, PROTOCOL)), compared(ETHERTYPES[family])]


def of_ip(family: int) -> list[bytes]:
    """The same in a table of INET, as nft says it there."""
    return [meta(NFPROTO), compared(bytes([FAMILIES[family]]))]


def loaded(header: int, offset: int, length: int) -> bytes:
    """Loads bytes of the packet, from the start of its NETWORK_HEADER or TRANSPORT_HEADER."""
    return _expression("payload", u32(1, FIRST), u32(2, header), u32(3, offset), u32(4, length))


def overwritten(header: int, offset: int, value: bytes) -> list[bytes]:
    """Puts other bytes there, and leaves all checksums as they are."""
    return [
        _expression("immediate", u32(1, FIRST), nested(2, attribute(1, value))),
        _expression("payload", u32(5, FIRST), u32(2, header), u32(3, offset), u32(4, len(value))),
    ]


def protocol(number: int) -> list[bytes]:
    return [_expression("meta", u32(1, FIRST), u32(2, L4PROTO)), compared(bytes([number]))]


def new_connection() -> list[bytes]:
    return [_expression("ct", u32(1, FIRST), u32(2, 0)), _bits(NEW), compared(bytes(4), equal=False)]


def marked(mark: int, *, yes: bool) -> list[bytes]:
    return [_expression("meta", u32(1, FIRST), u32(2, MARK)), _bits(mark), compared(bytes(4), equal=not yes)]


def set_mark(mark: int, *, on: bool) -> list[bytes]:
    return [
        _expression("meta", u32(1, FIRST), u32(2, MARK)),
        _bits(0xFFFFFFFF & ~mark, mark if on else 0),
        _expression("meta", u32(2, MARK), u32(3, FIRST)),
    ]


def lookup(number: int, name: str, *, verdict: bool, inverted: bool = False) -> bytes:
    """In the set or verdict map of that number (a name will do but for those without), by what was loaded."""
    parts = [text(1, name), u32(2, FIRST), *([u32(3, VERDICT)] if verdict else []), u32(4, number)]
    return _expression("lookup", *parts, *([u32(5, 1)] if inverted else []))


def random_number(below: int) -> bytes:
    return _expression("numgen", u32(1, FIRST), u32(2, below), u32(3, 1), u32(4, 0))


def counted_off(every: int) -> bytes:
    """Loads 0, 1, ... every - 1 and 0 again, from packet to packet."""
    return _expression("numgen", u32(1, FIRST), u32(2, every), u32(3, 0), u32(4, 0))


def masqueraded() -> bytes:
    return _expression("masq", u32(1, 1 << 4))  # fully-random


def counted() -> bytes:
    return _expression("counter")


def untracked() -> bytes:
    """Connection tracking does not see the packet."""
    return _expression("notrack")


def logged(prefix: str) -> bytes:
    return _expression("log", text(2, prefix), u32(5, 5))  # notice


def connection(what: int) -> bytes:
    """Loads CT_STATE or CT_STATUS."""
    return _expression("ct", u32(1, FIRST), u32(2, what))


def meta(what: int) -> bytes:
    """Loads L4PROTO, MARK, INCOMING or OUTGOING."""
    return _expression("meta", u32(1, FIRST), u32(2, what))


def fib(flags: int, result: int) -> bytes:
    """Loads what routing says: flags FIB_SOURCE ..., result FIB_OUTGOING or FIB_TYPE."""
    return _expression("fib", u32(1, FIRST), u32(2, result), u32(3, flags))


def masked(mask: int) -> bytes:
    """What was loaded, of the node's own byte order, and of it the bits of this mask."""
    return _bits(mask)


def new_mark(keep: int, put: int) -> list[bytes]:
    """The mark keeps these bits of its own and gets those."""
    return [meta(MARK), _bits(keep, put), _expression("meta", u32(2, MARK), u32(3, FIRST))]


def interface(name: str) -> bytes:
    """As a key, and as what to compare a whole name with."""
    return name.encode().ljust(INTERFACE_LENGTH, b"\0")


def decide(verdict: str, chain: str = "") -> bytes:
    return _expression("immediate", u32(1, VERDICT), nested(2, _verdict(verdict, chain)))


def _bits(mask: int, change: int = 0) -> bytes:
    return _expression(
        "bitwise",
        u32(1, FIRST),
        u32(2, FIRST),
        u32(3, 4),
        nested(4, attribute(1, struct.pack("=I", mask))),
        nested(5, attribute(1, struct.pack("=I", change))),
    )


def _verdict(name: str, chain: str) -> bytes:
    return nested(2, u32(1, VERDICTS[name] & 0xFFFFFFFF), *([text(2, chain)] if chain else []))


def _verdicts(elements: Iterable[tuple[bytes, str, str, str]]) -> list[bytes]:
    return [
        nested(1, _data(1, key), nested(2, _verdict(verdict, chain)), _comment(6, comment))
        for key, verdict, chain, comment in elements
    ]


def _key(value: bytes, flags: int = 0) -> bytes:
    return nested(1, _data(1, value), *([u32(3, flags)] if flags else []))


def _interval(network: Network) -> list[bytes]:
    length = network.max_prefixlen // 8
    return [_key(network.network_address.packed), *_end(int(network.broadcast_address) + 1, length)]


def _end(after: int, length: int) -> list[bytes]:
    """The first key that is not in an interval any more; the last one of all needs none."""
    return [_key(after.to_bytes(length, "big"), INTERVAL_END)] if after < 1 << length * 8 else []


def _data(kind: int, value: bytes) -> bytes:
    return nested(kind, attribute(1, value))


def _comment(kind: int, comment: str) -> bytes:
    """As nft keeps it beside a rule or an element."""
    plain = comment.encode() + b"\0"
    return attribute(kind, bytes([0, len(plain)]) + plain) if comment else b""


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *attributes))


def _send(messages: Sequence[Message]) -> None:
    batch = [message(BATCH_BEGIN, 0, 0, b"", resource=NFTABLES)]
    for number, (kind, flags, body, family) in enumerate(messages, 1):
        batch.append(message(NFTABLES << 8 | kind, flags | ACK, number, body, family))
    batch.append(message(BATCH_END, 0, len(messages) + 1, b"", resource=NFTABLES))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as wire:
        wire.settimeout(2.0)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        wire.send(b"".join(batch))
        answered = 0
        while answered < len(messages):
            data = wire.recv(1 << 16)
            while data:
                length, kind, _, number = struct.unpack_from("=IHHI", data)
                if kind == ERROR:
                    (code,) = struct.unpack_from("=i", data, 16)
                    if code:
                        refused = messages[number - 1][0] if 0 < number <= len(messages) else -1
                        raise OSError(-code, f"nftables refused message {number}, of kind {refused}")
                    answered += 1
                data = data[length + 3 & ~3 :]
