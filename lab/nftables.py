"""Writes one nftables table as a whole, in nft's nouns; there is no nft program where the lab runs.

Everything acts in the network namespace of the calling thread. `Kernel.flush_firewall` undoes it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

# linux/netfilter.h, linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h
NETLINK_NETFILTER, NFTABLES = 12, 10
BATCH_BEGIN, BATCH_END = 16, 17
NEW_TABLE, DELETE_TABLE, NEW_CHAIN, NEW_RULE, NEW_SET, NEW_ELEMENT = 0, 2, 3, 6, 9, 12
REQUEST, ACK, CREATE, APPEND, NESTED, ERROR = 0x1, 0x4, 0x400, 0x800, 0x8000, 2
FAMILIES = {4: 2, 6: 10}  # ip, ip6
NETDEV = 5
HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4, "ingress": 0}
VERDICTS = {"drop": 0, "accept": 1, "jump": -3, "goto": -4, "return": -5}
VERDICT, FIRST = 0, 8  # registers; from FIRST on of four bytes each
ANONYMOUS, CONSTANT, MAP = 0x1, 0x2, 0x8
VERDICT_TYPE = 0xFFFFFF00
NAMELESS = "__map%d"  # the kernel puts a number in
PROTOCOL, L4PROTO, MARK = 1, 16, 3
ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
NEW = 8  # ct state
LOCAL = 2  # fib: an address of the node's own
HEAD = struct.Struct("=IHHIIBBH")  # nlmsghdr, nfgenmsg

Network = IPv4Network | IPv6Network


class Table:
    """Gathers what the table is to hold; `write` puts it in place of what was there.

    With a device it is about packets of any family that come in by it (hook "ingress"), before the node looks at them.
    """

    def __init__(self, family: int, name: str, device: str = "") -> None:
        self.family = family
        self.name = name
        self.device = device
        self.length = 4 if family == 4 else 16  # of an address
        self._declared: list[tuple[int, int, bytes]] = []  # chains and sets
        self._elements: list[tuple[int, int, bytes]] = []  # their verdicts lead to chains
        self._rules: list[tuple[int, int, bytes]] = []
        self._sets = 0

    # ---- what it holds

    def chain(self, name: str, hook: str = "", kind: str = "filter", priority: int = 0) -> None:
        """A chain; one with a hook is entered by packets there."""
        body = _text(1, self.name) + _text(3, name)
        if hook:
            at = [_text(3, self.device)] if self.device else []
            body += _nested(4, _u32(1, HOOKS[hook]), _u32(2, priority & 0xFFFFFFFF), *at) + _text(7, kind)
        self._declared.append((NEW_CHAIN, CREATE, body))

    def set(self, name: str, key_length: int, elements: Iterable[bytes]) -> int:
        """A set of keys; its number is what `lookup` takes."""
        self._declared.append(self._set(name, 0, key_length))
        self._elements += self._put(name, [_nested(1, _data(1, one)) for one in elements])
        return self._sets

    def verdict_map(self, name: str, key_length: int, elements: Iterable[tuple[bytes, str, str, str]]) -> int:
        """Key -> verdict, chain ("" for none), comment; its number is what `lookup` takes."""
        self._declared.append(self._set(name, MAP, key_length))
        self._elements += self._put(name, _verdicts(elements))
        return self._sets

    def choice(self, elements: Iterable[tuple[bytes, str, str, str]]) -> bytes:
        """Verdict by what was loaded, of four bytes, in the very rule; that rule is to be the next."""
        self._rules.append(self._set(NAMELESS, MAP | ANONYMOUS | CONSTANT, 4))
        self._rules += self._put(NAMELESS, _verdicts(elements))
        return lookup(self._sets, NAMELESS, verdict=True)

    def _set(self, name: str, flags: int, key_length: int) -> tuple[int, int, bytes]:
        self._sets += 1
        body = _text(1, self.name) + _text(2, name) + _u32(3, flags) + _u32(4, 0) + _u32(5, key_length)
        if flags & MAP:
            body += _u32(6, VERDICT_TYPE) + _u32(7, 0)
        return NEW_SET, CREATE, body + _u32(10, self._sets)

    def _put(self, name: str, elements: Sequence[bytes]) -> list[tuple[int, int, bytes]]:
        """Into the set that was made last."""
        body = _text(1, self.name) + _text(2, name) + _nested(3, *elements) + _u32(4, self._sets)
        return [(NEW_ELEMENT, CREATE, body)] if elements else []

    def rule(self, chain: str, *expressions: bytes, comment: str = "") -> None:
        body = _text(1, self.name) + _text(2, chain) + _nested(4, *expressions) + _comment(7, comment)
        self._rules.append((NEW_RULE, CREATE | APPEND, body))

    # ---- expressions

    def address(self, which: str, register: int = FIRST) -> bytes:
        """Loads the packet's "source" or "destination"."""
        start = {4: 12, 6: 8}[self.family] + (self.length if which == "destination" else 0)
        return _expression("payload", _u32(1, register), _u32(2, NETWORK_HEADER), _u32(3, start), _u32(4, self.length))

    def service(self) -> list[bytes]:
        """Loads destination, protocol and destination port, one after the other."""
        after = FIRST + self.length // 4
        return [self.address("destination"), *self.ports(after)]

    def ports(self, register: int = FIRST) -> list[bytes]:
        """Loads protocol and destination port."""
        return [
            _expression("meta", _u32(1, register), _u32(2, L4PROTO)),
            _expression("payload", _u32(1, register + 1), _u32(2, TRANSPORT_HEADER), _u32(3, 2), _u32(4, 2)),
        ]

    def within(self, which: str, network: Network, *, inside: bool = True) -> list[bytes]:
        mask = _expression(
            "bitwise",
            _u32(1, FIRST),
            _u32(2, FIRST),
            _u32(3, self.length),
            _nested(4, _attribute(1, network.netmask.packed)),
            _nested(5, _attribute(1, bytes(self.length))),
        )
        return [self.address(which), mask, compared(network.network_address.packed, equal=inside)]

    def is_address(self, which: str, address: str) -> list[bytes]:
        return [self.address(which), compared(ip_address(address).packed)]

    def from_the_node(self) -> list[bytes]:
        """Does the packet come from an address of the node itself?"""
        kind = _expression("fib", _u32(1, FIRST), _u32(2, 3), _u32(3, 1))
        return [kind, compared(struct.pack("=I", LOCAL))]

    def translated(self, address: str, port: int) -> list[bytes]:
        """To this destination."""
        return [
            _expression("immediate", _u32(1, FIRST), _nested(2, _attribute(1, ip_address(address).packed))),
            _expression(
                "immediate",
                _u32(1, FIRST + self.length // 4),
                _nested(2, _attribute(1, port.to_bytes(2, "big"))),
            ),
            _expression(
                "nat",
                _u32(1, 1),
                _u32(2, FAMILIES[self.family]),
                _u32(3, FIRST),
                _u32(5, FIRST + self.length // 4),
            ),
        ]

    def refused(self) -> bytes:
        """By ICMP port unreachable."""
        return _expression("reject", _u32(1, 0), _attribute(2, bytes([3 if self.family == 4 else 4])))

    # ---- writing

    def write(self) -> None:
        """Raises OSError."""
        named = _text(1, self.name)
        again = [(NEW_TABLE, CREATE, named), (DELETE_TABLE, 0, named), (NEW_TABLE, CREATE, named)]
        _send([*again, *self._declared, *self._elements, *self._rules], self._number)

    def remove(self) -> None:
        """Also when there is none. Raises OSError."""
        named = _text(1, self.name)
        _send([(NEW_TABLE, CREATE, named), (DELETE_TABLE, 0, named)], self._number)

    @property
    def _number(self) -> int:
        return NETDEV if self.device else FAMILIES[self.family]


def key(*parts: bytes) -> bytes:
    """Of a set over several fields: each fills whole words."""
    return b"".join(part + b"\0" * (-len(part) % 4) for part in parts)


def compared(value: bytes, *, equal: bool = True) -> bytes:
    return _expression("cmp", _u32(1, FIRST), _u32(2, 0 if equal else 1), _nested(3, _attribute(1, value)))


def of_family(family: int) -> list[bytes]:
    """Is it a packet of this IP version?"""
    return [_expression("meta", _u32(1, FIRST), _u32(2, PROTOCOL)), compared(ETHERTYPES[family])]


def loaded(header: int, offset: int, length: int) -> bytes:
    """Loads bytes of the packet, from the start of its NETWORK_HEADER or TRANSPORT_HEADER."""
    return _expression("payload", _u32(1, FIRST), _u32(2, header), _u32(3, offset), _u32(4, length))


def overwritten(header: int, offset: int, value: bytes) -> list[bytes]:
    """Puts other bytes there, and leaves all checksums as they are."""
    return [
        _expression("immediate", _u32(1, FIRST), _nested(2, _attribute(1, value))),
        _expression("payload", _u32(5, FIRST), _u32(2, header), _u32(3, offset), _u32(4, len(value))),
    ]


def protocol(number: int) -> list[bytes]:
    return [_expression("meta", _u32(1, FIRST), _u32(2, L4PROTO)), compared(bytes([number]))]


def new_connection() -> list[bytes]:
    return [_expression("ct", _u32(1, FIRST), _u32(2, 0)), _bits(NEW), compared(bytes(4), equal=False)]


def marked(mark: int, *, yes: bool) -> list[bytes]:
    return [_expression("meta", _u32(1, FIRST), _u32(2, MARK)), _bits(mark), compared(bytes(4), equal=not yes)]


def set_mark(mark: int, *, on: bool) -> list[bytes]:
    return [
        _expression("meta", _u32(1, FIRST), _u32(2, MARK)),
        _bits(0xFFFFFFFF & ~mark, mark if on else 0),
        _expression("meta", _u32(2, MARK), _u32(3, FIRST)),
    ]


def lookup(number: int, name: str, *, verdict: bool) -> bytes:
    """In the set or verdict map of that number, by what was loaded."""
    parts = [_text(1, name), _u32(2, FIRST), *([_u32(3, VERDICT)] if verdict else []), _u32(4, number)]
    return _expression("lookup", *parts)


def random_number(below: int) -> bytes:
    return _expression("numgen", _u32(1, FIRST), _u32(2, below), _u32(3, 1), _u32(4, 0))


def masqueraded() -> bytes:
    return _expression("masq", _u32(1, 1 << 4))  # fully-random


def decide(verdict: str, chain: str = "") -> bytes:
    return _expression("immediate", _u32(1, VERDICT), _nested(2, _verdict(verdict, chain)))


def _bits(mask: int, change: int = 0) -> bytes:
    return _expression(
        "bitwise",
        _u32(1, FIRST),
        _u32(2, FIRST),
        _u32(3, 4),
        _nested(4, _attribute(1, struct.pack("=I", mask))),
        _nested(5, _attribute(1, struct.pack("=I", change))),
    )


def _verdict(name: str, chain: str) -> bytes:
    return _nested(2, _u32(1, VERDICTS[name] & 0xFFFFFFFF), *([_text(2, chain)] if chain else []))


def _verdicts(elements: Iterable[tuple[bytes, str, str, str]]) -> list[bytes]:
    return [
        _nested(1, _data(1, key), _nested(2, _verdict(verdict, chain)), _comment(6, comment))
        for key, verdict, chain, comment in elements
    ]


def _data(kind: int, value: bytes) -> bytes:
    return _nested(kind, _attribute(1, value))


def _comment(kind: int, text: str) -> bytes:
    """As nft keeps it beside a rule or an element."""
    plain = text.encode() + b"\0"
    return _attribute(kind, bytes([0, len(plain)]) + plain) if text else b""


def _expression(name: str, *attributes: bytes) -> bytes:
    return _nested(1, _text(1, name), _nested(2, *attributes))


def _send(messages: Sequence[tuple[int, int, bytes]], family: int) -> None:
    batch = _message(BATCH_BEGIN, 0, 0, b"", NFTABLES)
    for number, (kind, flags, body) in enumerate(messages, 1):
        batch += _message(NFTABLES << 8 | kind, flags | ACK, number, body, family=family)
    batch += _message(BATCH_END, 0, len(messages) + 1, b"", NFTABLES)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as wire:
        wire.settimeout(2.0)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        wire.send(batch)
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


def _message(kind: int, flags: int, number: int, body: bytes, resource: int = 0, family: int = 0) -> bytes:
    length = HEAD.size + len(body)
    return HEAD.pack(length, kind, REQUEST | flags, number, 0, family, 0, socket.htons(resource)) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _nested(kind: int, *attributes: bytes) -> bytes:
    return _attribute(kind | NESTED, b"".join(attributes))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _u32(kind: int, value: int) -> bytes:
    return _attribute(kind, value.to_bytes(4, "big"))
