"""The rules of nftables as the kernel itself has them; without it a probe that has no `nft` beside it could not say
which rule ended a packet, and none could say for which Service a map of kube-proxy's did.

What rules are made of is put into nft's words as far as they matter to whoever reads them, and to the engine:
addresses, interfaces, protocols, ports, marks, states, comments and the end. The rest stands in square brackets.
"""

from __future__ import annotations

import re
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address
from typing import Literal

from node_probe import nfnetlink
from node_probe.firewall.ruleset import NFT, Chain, Element, Key, Rule, calico_comment
from node_probe.netlink_messages import attributes
from node_probe.nfnetlink import DUMP, FAMILIES, GET_RULE, INET, NETDEV, NEW_RULE, NFTABLES

# linux/netfilter/nf_tables.h
NEW_CHAIN, GET_CHAIN, NEW_ELEMENTS, GET_ELEMENTS = 3, 4, 12, 13
NUMBERS = {"ip": FAMILIES[4], "ip6": FAMILIES[6], "inet": INET, "netdev": NETDEV, "arp": 3, "bridge": 7}
NAMES = {number: name for name, number in NUMBERS.items()}
HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
HOOKS_OF = {NETDEV: ("ingress", "egress"), NUMBERS["arp"]: ("input", "output")}
POLICIES = {0: "drop", 1: "accept"}
VERDICTS = {0: "drop", 1: "accept", 3: "queue", -1: "continue", -3: "jump", -4: "goto", -5: "return"}
SIGNS = ("", "!= ", "< ", "<= ", "> ", ">= ")
FIELDS = {  # of a packet: header, offset, length
    (1, 12, 4): "ip saddr",
    (1, 16, 4): "ip daddr",
    (1, 9, 1): "ip protocol",
    (1, 8, 16): "ip6 saddr",
    (1, 24, 16): "ip6 daddr",
    (1, 6, 1): "ip6 nexthdr",
    (2, 0, 2): "th sport",
    (2, 2, 2): "th dport",
}
STARTS = {(1, 12, False): "ip saddr", (1, 16, False): "ip daddr", (1, 8, True): "ip6 saddr", (1, 24, True): "ip6 daddr"}
HEADERS = {0: "ll", 1: "nh", 2: "th", 3: "ih"}
META = {
    1: "meta protocol", 3: "meta mark", 4: "iif", 5: "oif", 6: "iifname", 7: "oifname", 10: "meta skuid",
    15: "meta nfproto", 16: "meta l4proto", 19: "meta pkttype",
}  # fmt: skip
CONNECTION = {0: "ct state", 1: "ct direction", 2: "ct status", 3: "ct mark"}
STATES = {1: "invalid", 2: "established", 4: "related", 8: "new", 64: "untracked"}
FIB_BY = {1: "saddr", 2: "daddr", 4: "mark", 8: "iif", 16: "oif"}
FIB_RESULTS = {1: "oif", 2: "oifname", 3: "type"}
OF_THE_HOST = ("mark", "state", "status", "iif", "oif", "skuid", "type")  # numbers in the machine's own byte order
PROTOCOLS = {1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 58: "ipv6-icmp", 132: "sctp"}
OF_NETWORK = {2: "ipv4", 10: "ipv6"}
OF_LINK = {0x0800: "ip", 0x86DD: "ip6", 0x0806: "arp"}
REGISTERS_OF_16, WORDS = 4, 8  # 1 to 4 are of 16 bytes, from 8 on of four each
OF_POLICIES = re.compile(r"(?:^|-)cali-(?:p[io]|pr[io]|g[io])-")
EXTENSIONS = ("match", "target")  # of iptables
ENDING_TARGETS = {"REJECT": "reject", "DROP": "drop"}


def listed(keys: Iterable[Key]) -> list[Chain]:
    """Every base chain; with their rules these chains, and those of policies that they lead to. Raises OSError."""
    with nfnetlink.netfilter() as wire:
        heads = {chain.key: chain for chain in _heads(wire)}
        waiting = [key for key in keys if key[0] == NFT and key[1] in NUMBERS]
        done: set[Key] = set()
        while waiting:
            key = waiting.pop()
            done.add(key)
            rules = list(_rules(wire, *key[1:]))
            heads[key] = heads.get(key, Chain(backend=NFT, family=key[1], table=key[2], name=key[3])).with_rules(rules)
            led = ((*key[:3], target) for rule in rules for target in rule.targets if OF_POLICIES.search(target))
            waiting += [one for one in dict.fromkeys(led) if one not in done]
    return [chain for chain in heads.values() if chain.hook or chain.rules]


def handles(chains: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str, str], list[int]]:
    """By chain (family, table, name) its rules' handles in order. Raises OSError."""
    with nfnetlink.netfilter() as wire:
        return {one: [_number(has[3]) for has in _bodies(wire, *one)] for one in chains}


def elements(family: str, table: str, name: str) -> list[Element]:
    """Of a map over addresses, protocols and ports, as kube-proxy's. Raises OSError (ENOENT: there is none)."""
    named = nfnetlink.text(1, table) + nfnetlink.text(2, name)
    with nfnetlink.netfilter() as wire:
        told = list(_dumped(wire, GET_ELEMENTS, NEW_ELEMENTS, NUMBERS[family], named))
    found = []
    for _, body in told:
        for one in _each(attributes(body).get(3, b"")):
            has = attributes(one)
            value = attributes(has.get(1, b"")).get(1, b"")
            found.append(Element(key=_service(value), comment=_comment(has.get(6, b""))))
    return found


def _service(key: bytes) -> tuple[str, ...]:
    """Every field fills words of four bytes: an address where there is one, a protocol's number, a port."""
    address, number, port = key[:-8], key[-8:-4], key[-4:]
    there = (str(ip_address(address)),) if len(address) in (4, 16) else ()
    return *there, str(number[0] if number else 0), str(_number(port[:2]))


def _heads(wire: socket.socket) -> Iterator[Chain]:
    for number, body in _dumped(wire, GET_CHAIN, NEW_CHAIN, 0, b""):
        has = attributes(body)
        hook = attributes(has.get(4, b"")).get(1)
        names = HOOKS_OF.get(number, HOOKS)
        if number in NAMES:
            at = _number(hook) if hook else -1
            yield Chain(
                backend=NFT,
                family=NAMES[number],
                table=_text(has.get(1, b"")),
                name=_text(has.get(3, b"")),
                hook=names[at] if 0 <= at < len(names) else "",
                policy=POLICIES.get(_number(has[5]), "") if hook and 5 in has else "",
            )


def _bodies(wire: socket.socket, family: str, table: str, chain: str) -> Iterator[dict[int, bytes]]:
    """What each of its rules has."""
    named = nfnetlink.text(1, table) + nfnetlink.text(2, chain)
    for _, body in _dumped(wire, GET_RULE, NEW_RULE, NUMBERS[family], named):
        has = attributes(body)
        # An old kernel does not heed which chain was asked for.
        if _text(has.get(2, b"")) == chain and _text(has.get(1, b"")) == table:
            yield has


def _rules(wire: socket.socket, family: str, table: str, chain: str) -> Iterator[Rule]:
    for number, has in enumerate(_bodies(wire, family, table, chain), 1):
        words = _Words()
        for one in _each(has.get(4, b"")):
            expression = attributes(one)
            words.read(_text(expression.get(1, b"")), attributes(expression.get(2, b"")))
        comment = _comment(has.get(7, b"")) or words.comment
        digest, said = calico_comment(comment)
        yield Rule(
            backend=NFT,
            family=family,
            table=table,
            chain=chain,
            number=number,
            handle=_number(has[3]),
            text=" ".join([*words.said, f'comment "{comment}"'] if comment else words.said),
            comment=said,
            digest=digest,
            verdict=words.verdict,
            targets=words.targets,
            packets=words.packets,
        )


class _Words:
    """What one rule's expressions say, in their order."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.comment = ""
        self.verdict = ""
        self.targets: tuple[str, ...] = ()
        self.packets = -1
        self._loaded: dict[int, str] = {}  # by the first word of the register
        self._mask: dict[int, tuple[bytes, bytes]] = {}

    def read(self, name: str, has: dict[int, bytes]) -> None:
        known: dict[str, Callable[[dict[int, bytes]], None]] = {
            "payload": self._payload,
            "meta": self._meta,
            "ct": self._ct,
            "fib": self._fib,
            "bitwise": self._bitwise,
            "cmp": self._compared,
            "range": self._ranged,
            "lookup": self._lookup,
            "immediate": self._immediate,
            "counter": self._counter,
        }
        if name in known:
            known[name](has)
        elif name == "reject":
            self.verdict = "reject"
            self.said.append("reject")
        elif name in EXTENSIONS:
            self._extension(name, has)
        else:
            self.said.append(name if name in ("log", "limit", "notrack", "masq") else f"[{name}]")

    def _load(self, register: int, what: str) -> None:
        self._loaded[_word(register)] = what
        self._mask.pop(_word(register), None)

    def _payload(self, has: dict[int, bytes]) -> None:
        place = _number(has.get(2, b"")), _number(has.get(3, b"")), _number(has.get(4, b""))
        header, offset, length = place
        started = STARTS.get((header, offset, length > 4), "")  # nft loads no more of an address than it compares
        what = FIELDS.get(place) or started or (f"@{HEADERS.get(header, header)},{offset * 8},{length * 8}")
        if 1 in has:
            self._load(_number(has[1]), what)
        else:
            self.said.append(f"{what} set")

    def _meta(self, has: dict[int, bytes]) -> None:
        key = _number(has.get(2, b""))
        what = META.get(key, f"meta [{key}]")
        if 1 in has:
            self._load(_number(has[1]), what)
            return
        word = _word(_number(has.get(3, b"")))
        mask, change = self._mask.get(word, (b"", b""))
        # nft writes "or" and "and"; what matters is which bits are put.
        self.said.append(f"{what} set {what} & {_native(mask)} ^ {_native(change)}" if mask else f"{what} set")

    def _ct(self, has: dict[int, bytes]) -> None:
        key = _number(has.get(2, b""))
        what = CONNECTION.get(key, f"ct [{key}]")
        if 1 in has:
            self._load(_number(has[1]), what)
        else:
            self.said.append(f"{what} set")

    def _fib(self, has: dict[int, bytes]) -> None:
        by = _number(has.get(3, b""))
        fields = " . ".join(name for bit, name in FIB_BY.items() if by & bit)
        self._load(_number(has.get(1, b"")), f"fib {fields} {FIB_RESULTS.get(_number(has.get(2, b'')), '')}".rstrip())

    def _bitwise(self, has: dict[int, bytes]) -> None:
        source, target = _word(_number(has.get(1, b""))), _word(_number(has.get(2, b"")))
        self._loaded[target] = self._loaded.get(source, "[?]")
        if 4 in has:
            self._mask[target] = attributes(has[4]).get(1, b""), attributes(has.get(5, b"")).get(1, b"")
        else:
            self._loaded[target] += " [shifted]"

    def _compared(self, has: dict[int, bytes]) -> None:
        word, sign = _word(_number(has.get(1, b""))), _number(has.get(2, b""))
        what, value = self._loaded.get(word, "[?]"), attributes(has.get(3, b"")).get(1, b"")
        mask, _ = self._mask.get(word, (b"", b""))
        if mask and what == "ct state" and sign == 1 and not any(value):
            bits = int.from_bytes(mask, _order())
            self.said.append(f"ct state {','.join(name for bit, name in STATES.items() if bits & bit)}")
        elif mask and (length := _prefix(mask)) >= 0 and what.endswith("addr"):
            self.said.append(f"{what} {SIGNS[sign]}{ip_address(value)}/{length}")
        elif mask:
            told = _native if what.endswith(OF_THE_HOST) else _plain
            self.said.append(f"{what} & {told(mask)} {SIGNS[sign] or '== '}{told(value)}")
        else:
            self.said.append(f"{what} {SIGNS[sign]}{_value(what, value)}")

    def _ranged(self, has: dict[int, bytes]) -> None:
        what = self._loaded.get(_word(_number(has.get(1, b""))), "[?]")
        ends = [_value(what, attributes(has.get(kind, b"")).get(1, b"")) for kind in (3, 4)]
        self.said.append(f"{what} {SIGNS[_number(has.get(2, b''))]}{'-'.join(ends)}")

    def _lookup(self, has: dict[int, bytes]) -> None:
        name, first = _text(has.get(1, b"")), _word(_number(has.get(2, b"")))
        what = " . ".join(text for word, text in sorted(self._loaded.items()) if word >= first)
        inverted = "!= " if _number(has.get(5, b"")) & 1 else ""
        deciding = 3 in has and _number(has[3]) == 0
        self.said.append(f"{what} {'vmap ' if deciding else inverted}@{name}")
        self._loaded.clear()

    def _immediate(self, has: dict[int, bytes]) -> None:
        if _number(has.get(1, b"")):
            self._load(_number(has[1]), "[value]")
            return
        verdict = attributes(attributes(has.get(2, b"")).get(2, b""))
        code = int.from_bytes(verdict.get(1, b""), "big", signed=True)
        said, chain = VERDICTS.get(code, VERDICTS.get(code & 0xFF, "")), _text(verdict.get(2, b""))
        self.verdict = "" if said == "continue" else said
        self.targets = (chain,) if chain else ()
        self.said.append(f"{said} {chain}".strip())

    def _counter(self, has: dict[int, bytes]) -> None:
        self.packets = _number(has.get(2, b""))
        self.said.append("counter")

    def _extension(self, kind: str, has: dict[int, bytes]) -> None:
        name = _text(has.get(1, b""))
        if name == "comment":
            self.comment = _text(has.get(3, b"").partition(b"\0")[0])
            return
        self.verdict = ENDING_TARGETS.get(name, self.verdict) if kind == "target" else self.verdict
        self.said.append(ENDING_TARGETS.get(name, f"[{name}]") if kind == "target" else f"[{name}]")


def _order() -> Literal["little", "big"]:
    return sys.byteorder


def _word(register: int) -> int:
    return register - WORDS if register >= WORDS else (register - 1) * REGISTERS_OF_16


def _native(value: bytes) -> str:
    return f"0x{int.from_bytes(value, _order()):x}"


def _plain(value: bytes) -> str:
    return f"0x{value.hex()}"


def _prefix(mask: bytes) -> int:
    """Length of the prefix that it is; -1: it is none."""
    bits = f"{int.from_bytes(mask, 'big'):0{len(mask) * 8}b}"
    return bits.find("0") % (len(bits) + 1) if "01" not in bits else -1


def _value(what: str, value: bytes) -> str:
    if what.endswith("addr"):
        whole = 16 if what.startswith("ip6") else 4
        address = str(ip_address(value.ljust(whole, b"\0")))
        return address if len(value) == whole else f"{address}/{len(value) * 8}"
    if what.endswith(("iifname", "oifname")):
        name = value.rstrip(b"\0").decode(errors="replace")
        return f'"{name}"' if len(value) == 16 else f'"{name}*"'
    number = int.from_bytes(value, _order() if what.endswith(OF_THE_HOST) else "big")
    if what in ("meta l4proto", "ip protocol", "ip6 nexthdr"):
        return PROTOCOLS.get(number, str(number))
    if what == "meta nfproto":
        return OF_NETWORK.get(number, str(number))
    if what == "meta protocol":
        return OF_LINK.get(number, f"0x{number:04x}")
    if what.startswith("@"):
        return _plain(value)
    return f"0x{number:x}" if what.endswith(("mark", "state", "status")) else str(number)


def _comment(data: bytes) -> str:
    """nft keeps type, length and value of what it wants to remember; type 0 is the comment."""
    while len(data) >= 2:
        kind, length = data[0], data[1]
        if kind == 0:
            return _text(data[2 : 2 + length])
        data = data[2 + length :]
    return ""


def _each(data: bytes) -> Iterator[bytes]:
    offset = 0
    while offset + 4 <= len(data):
        (length,) = struct.unpack_from("=H", data, offset)
        if length < 4:
            return
        yield data[offset + 4 : offset + length]
        offset += length + 3 & ~3


def _dumped(wire: socket.socket, asked: int, answered: int, family: int, named: bytes) -> Iterator[tuple[int, bytes]]:
    wire.send(nfnetlink.message(NFTABLES << 8 | asked, DUMP, 1, named, family))
    return nfnetlink.dumped(wire, NFTABLES << 8 | answered)


def _number(value: bytes) -> int:
    return int.from_bytes(value, "big")


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
