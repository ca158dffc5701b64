"""What a rule can say, each as nft and iptables-save print it and as the kernel takes it; without it the lab's chains
could be written and never compared with those of a running Calico.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, ip_network
from typing import Any

from lab import nftables
from lab.nftables import Network, Table

TCP, UDP, SCTP, ICMP, ICMPV6, IPIP = 6, 17, 132, 1, 58, 4
WITH_PORTS = {TCP: "tcp", UDP: "udp", SCTP: "sctp"}
SIDES = {"source": "saddr", "destination": "daddr"}
SIDES_OF_SETS = {"source": "src", "destination": "dst"}
LONGEST_COMMENT = 128  # of nft
IPTABLES_ORDER = ("-s ", "-d ", "-i ", "-o ", "-p ")  # these come before all comments
NAMED = re.compile(r"(name=\S+) (.+)")
LONGEST_CHAIN = 28  # of iptables
HASHED_CHAIN = re.compile(r"(cali-(?:[pg][io]|pr[io]|[tf][wh]|[tf]hfw)-)(.+)")
LAYER = re.compile(r"(raw|mangle|nat|filter)-(.+)")
PORT_OFFSETS = {"source": 0, "destination": 2}

# By their numbers iptables prints those without a name of its own; where there is /etc/protocols, by that.
IPTABLES_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 50: "esp", 51: "ah", 58: "ipv6-icmp", 132: "sctp", 136: "udplite"}
IPTABLES_STATES = {nftables.INVALID: "INVALID", nftables.NEW: "NEW", nftables.RELATED: "RELATED",
                   nftables.ESTABLISHED: "ESTABLISHED"}  # fmt: skip
MOST_PORTS = 15  # of one multiport match; a range is two
OF_SELECTORS = re.compile(r"(cali[46]0(?:s|n|svc))-")

Expressions = Callable[[Table], list[bytes]]
Ports = tuple[tuple[int, int], ...]  # (first, last)


@dataclass(frozen=True)
class Word:
    """One match or one action. Two words are equal when nft prints them alike."""

    text: str
    make: Expressions = field(compare=False, repr=False)
    saved: tuple[str, ...] = field(default=(), compare=False)  # for iptables: "-p udp", "-m multiport --dports 4789"


# ---- matches


def protocol(number: int, *, equal: bool = True) -> Word:
    value = bytes([number])
    return Word(
        f"meta l4proto {_unless(equal)}{number}",
        lambda table: [nftables.meta(nftables.L4PROTO), nftables.compared(value, equal=equal)],
        (f"{_not(equal)}-p {IPTABLES_PROTOCOLS.get(number, number)}",),
    )


def port(number: int, side: str, ranges: Ports, *, equal: bool = True) -> Word:
    """Of TCP, UDP or SCTP."""
    listed = [str(first) if first == last else f"{first}-{last}" for first, last in ranges]
    only = ranges[0][0] if len(ranges) == 1 and ranges[0][0] == ranges[0][1] else None
    several = listed[0] if only is not None else f"{{ {', '.join(listed)} }}"

    def make(table: Table) -> list[bytes]:
        load = nftables.loaded(nftables.TRANSPORT_HEADER, PORT_OFFSETS[side], 2)
        if only is not None:
            compare = nftables.compared(only.to_bytes(2, "big"), equal=equal)
        else:
            compare = table.one_of_ports(ranges, inside=equal)
        return [*nftables.protocol(number), load, compare]

    span = ",".join(str(first) if first == last else f"{first}:{last}" for first, last in ranges)
    return Word(
        f"{WITH_PORTS[number]} {'sport' if side == 'source' else 'dport'} {_unless(equal)}{several}",
        make,
        (f"-p {WITH_PORTS[number]}", f"-m multiport {_not(equal)}--{side[0]}ports {span}"),
    )


def udp_port(number: int) -> Word:
    """As iptables says it of a single destination."""
    return replace(port(UDP, "destination", ((number, number),)), saved=("-p udp", f"-m udp --dport {number}"))


def icmp(family: int, kind: int, code: int = -1, *, equal: bool = True) -> Word:
    name, number = ("icmp", ICMP) if family == 4 else ("icmpv6", ICMPV6)
    text = f"{name} type {_unless(equal)}{kind}" + (f" {name} code {_unless(equal)}{code}" if code >= 0 else "")

    def make(table: Table) -> list[bytes]:
        made = nftables.protocol(number)
        for offset, value in ((0, kind), (1, code)):
            if value >= 0:
                made += [
                    nftables.loaded(nftables.TRANSPORT_HEADER, offset, 1),
                    nftables.compared(bytes([value]), equal=equal),
                ]
        return made

    module, option = ("icmp", "icmp-type") if family == 4 else ("icmp6", "icmpv6-type")
    which = f"{kind}/{code}" if code >= 0 else f"{kind}"
    saved = (f"-p {IPTABLES_PROTOCOLS[number]}", f"-m {module} {_not(equal)}--{option} {which}")
    return Word(text, make, saved)


def net(side: str, network: Network, *, inside: bool = True) -> Word:
    family = 4 if isinstance(network, IPv4Network) else 6
    shown = str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)

    def make(table: Table) -> list[bytes]:
        if network.prefixlen == network.max_prefixlen:
            return [table.address(side), nftables.compared(network.network_address.packed, equal=inside)]
        return table.within(side, network, inside=inside)

    saved = (f"{_not(inside)}-{side[0]} {network}",)
    return Word(f"{_ip(family)} {SIDES[side]} {_unless(inside)}{shown}", make, saved)


def in_set(family: int, side: str, name: str, *, inside: bool = True) -> Word:
    return Word(
        f"{_ip(family)} {SIDES[side]} {_unless(inside)}@{name}",
        lambda table: [table.address(side), nftables.lookup(0, name, verdict=False, inverted=not inside)],
        (f"-m set {_not(inside)}--match-set {ipset(name)} {SIDES_OF_SETS[side]}",),
    )


def served_in_set(family: int, side: str, number: int, name: str, *, inside: bool = True) -> Word:
    """Address, protocol and port are a member."""
    named_port = f"{WITH_PORTS[number]} {'sport' if side == 'source' else 'dport'}"

    def make(table: Table) -> list[bytes]:
        after = nftables.FIRST + table.length // 4
        return [
            *nftables.protocol(number),
            table.address(side),
            *table.ports(after, PORT_OFFSETS[side]),
            nftables.lookup(0, name, verdict=False, inverted=not inside),
        ]

    which = SIDES_OF_SETS[side]
    return Word(
        f"{_ip(family)} {SIDES[side]} . meta l4proto . {named_port} {_unless(inside)}@{name}",
        make,
        (f"-p {WITH_PORTS[number]}", f"-m set {_not(inside)}--match-set {ipset(name)} {which},{which}"),
    )


def came_by(name: str) -> Word:
    """By this interface, or by one whose name starts so: "cali*"."""
    return _interface("iifname", nftables.INCOMING, name)


def leaves_by(name: str) -> Word:
    return _interface("oifname", nftables.OUTGOING, name)


def _interface(word: str, what: int, name: str) -> Word:
    value = name[:-1].encode() if name.endswith("*") else nftables.interface(name)
    saved = f"{'-i' if what == nftables.INCOMING else '-o'} {name.replace('*', '+')}"
    return Word(f'{word} "{name}"', lambda table: [nftables.meta(what), nftables.compared(value)], (saved,))


def marked(bits: int, value: int, *, equal: bool = True) -> Word:
    """Of these bits the mark has those."""
    compared = nftables.compared(struct.pack("=I", value), equal=equal)
    return Word(
        f"meta mark & 0x{bits:08x} {'==' if equal else '!='} 0x{value:08x}",
        lambda table: [nftables.meta(nftables.MARK), nftables.masked(bits), compared],
        (f"-m mark {_not(equal)}--mark {value:#x}/{bits:#x}",),
    )


def tracked(*states: int) -> Word:
    bits = sum(states)
    return Word(
        f"ct state {','.join(f'0x{one:x}' for one in states)}",
        lambda table: [
            nftables.connection(nftables.CT_STATE),
            nftables.masked(bits),
            nftables.compared(bytes(4), equal=False),
        ],
        (f"-m conntrack --ctstate {','.join(IPTABLES_STATES[one] for one in IPTABLES_STATES if one in states)}",),
    )


def translated(*, yes: bool) -> Word:
    """Was the connection's destination translated?"""

    def make(table: Table) -> list[bytes]:
        load = nftables.connection(nftables.CT_STATUS)
        if yes:
            return [load, nftables.masked(nftables.TRANSLATED), nftables.compared(bytes(4), equal=False)]
        return [load, nftables.compared(struct.pack("=I", nftables.TRANSLATED), equal=False)]

    return Word(
        f"ct status {_unless(yes)}0x{nftables.TRANSLATED:x}", make, (f"-m conntrack {_not(yes)}--ctstate DNAT",)
    )


def node_has(side: str, *, leaving: bool = False, yes: bool = True) -> Word:
    """Is that address the node's own; with `leaving`, on the very device the packet leaves by?"""
    flags = (nftables.FIB_SOURCE if side == "source" else nftables.FIB_DESTINATION) | (
        nftables.FIB_LEAVES_BY if leaving else 0
    )
    compared = nftables.compared(struct.pack("=I", nftables.LOCAL), equal=yes)
    return Word(
        f"fib {SIDES[side]}{' . oif' if leaving else ''} type {_unless(yes)}{nftables.LOCAL}",
        lambda table: [nftables.fib(flags, nftables.FIB_TYPE), compared],
        (f"-m addrtype {_not(yes)}--{SIDES_OF_SETS[side]}-type LOCAL{' --limit-iface-out' if leaving else ''}",),
    )


def no_way_back() -> Word:
    """What would be sent to its source would not leave by where it came in: a reverse path filter."""
    flags = nftables.FIB_SOURCE | nftables.FIB_MARK | nftables.FIB_CAME_BY
    return Word(
        "fib saddr . mark . iif oif 0",
        lambda table: [nftables.fib(flags, nftables.FIB_OUTGOING), nftables.compared(bytes(4))],
        ("-m rpfilter --validmark --invert",),
    )


def arp_reply_of(interface: str, address: str) -> list[Word]:
    """An ARP reply that leaves by this interface and says that address."""
    packed = ip_network(address).network_address.packed
    return [
        leaves_by(interface),
        Word("arp operation 2", lambda table: [_arp(6, 2), nftables.compared(b"\0\2")]),
        Word(f"arp saddr ip {address}", lambda table: [_arp(14, 4), nftables.compared(packed)]),
    ]


def _arp(offset: int, length: int) -> bytes:
    return nftables.loaded(nftables.NETWORK_HEADER, offset, length)


# ---- actions


def decide(verdict: str, chain: str = "") -> Word:
    """accept, drop, return, continue; jump and goto to a chain."""
    saved = f"-{'g' if verdict == 'goto' else 'j'} {iptables_chain(chain)[1] if chain else verdict.upper()}"
    return Word(
        f"{verdict} {chain}".rstrip(),
        lambda table: [nftables.decide(verdict, chain)],
        () if verdict == "continue" else (saved,),
    )


def refuse() -> Word:
    """As `nft` prints a plain reject."""
    return Word("reject", lambda table: [table.refused()], ("-j REJECT",))


def set_mark(bits: int) -> Word:
    return Word(
        f"meta mark set meta mark | 0x{bits:08x}",
        lambda table: nftables.new_mark(0xFFFFFFFF & ~bits, bits),
        (f"-j MARK --set-xmark {bits:#x}/{bits:#x}",),
    )


def clear_mark(bits: int, put: int = 0) -> Word:
    """Bits of the mark are cleared, then some of them set."""
    keep = 0xFFFFFFFF & ~bits
    text = f"meta mark set meta mark & 0x{keep | put:08x}" + (f" | 0x{put:08x}" if put else "")
    return Word(text, lambda table: nftables.new_mark(keep, put), (f"-j MARK --set-xmark {put:#x}/{bits:#x}",))


def untracked() -> Word:
    return Word("notrack", lambda table: [nftables.untracked()], ("-j NOTRACK",))


def masqueraded() -> Word:
    return Word("masquerade fully-random", lambda table: [nftables.masqueraded()], ("-j MASQUERADE --random-fully",))


def logged(prefix: str) -> Word:
    return Word(
        f'log prefix "{prefix}" level notice',
        lambda table: [nftables.logged(prefix)],
        (f'-j LOG --log-prefix "{prefix}" --log-level 5',),
    )


def dispatched(word: str, name: str) -> Word:
    """By the interface ("iifname" or "oifname") to the chain a map has for it."""
    what = nftables.INCOMING if word == "iifname" else nftables.OUTGOING
    return Word(f"{word} vmap @{name}", lambda table: [nftables.meta(what), nftables.lookup(0, name, verdict=True)])


# ---- rules and what they look things up in


@dataclass(frozen=True)
class Rule:
    """Matches, then one action. Only rules with an action of their own count what they meet."""

    matches: tuple[Word, ...]
    action: Word
    comment: str = ""
    counts: bool = True

    @property
    def text(self) -> str:
        """As `nft --numeric list` prints it, without the counter's numbers and without its handle."""
        words = [one.text for one in self.matches] + (["counter"] if self.counts else []) + [self.action.text]
        return " ".join(words) + (f' comment "{self.comment}"' if self.comment else "")

    @property
    def saved(self) -> str:
        """As `iptables-save` prints it, behind `-A CHAIN`."""
        parts = list(dict.fromkeys(part for one in self.matches for part in one.saved))
        ahead = [part for option in IPTABLES_ORDER for part in parts if part.removeprefix("! ").startswith(option)]
        comments = [f'-m comment --comment "{one}"' for one in self._comments()]
        return " ".join([*ahead, *comments, *(part for part in parts if part not in ahead), *self.action.saved])

    def _comments(self) -> Iterator[str]:
        """Those that nft has in one."""
        hashed, _, rest = self.comment.partition(";")
        named = NAMED.fullmatch(rest.strip())
        yield from filter(None, (hashed, *(named.groups() if named else (rest.strip(),))))

    def expressions(self, table: Table) -> list[bytes]:
        made = [expression for one in self.matches for expression in one.make(table)]
        return [*made, *([nftables.counted()] if self.counts else []), *self.action.make(table)]


@dataclass(frozen=True)
class Chain:
    """With a hook, a base chain."""

    name: str
    rules: tuple[Rule, ...] = ()
    hook: str = ""
    kind: str = "filter"
    priority: int = 0


@dataclass(frozen=True)
class Networks:
    """A set of networks, or of single addresses where `single`."""

    name: str
    members: tuple[Network, ...]
    single: bool = False


@dataclass(frozen=True)
class Served:
    """A set of (address, protocol number, port)."""

    name: str
    members: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Dispatch:
    """A map from interfaces to chains."""

    name: str
    chains: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Ruleset:
    """All of one table of one node."""

    family: int
    name: str
    sets: tuple[Networks | Served, ...]
    maps: tuple[Dispatch, ...]
    chains: tuple[Chain, ...]
    arp: bool = False  # of ARP instead of a family of IP

    def table(self, before: Ruleset | None = None) -> Table:
        """To be written; or, for what was written before, what is different, to be amended."""
        table = Table(self.family, self.name, of=nftables.ARP if self.arp else 0)
        chains = {one.name: one for one in before.chains} if before else {}
        sets = {one.name: one for one in (*before.sets, *before.maps)} if before else {}
        changed = [one for one in self.chains if chains.get(one.name) != one]
        for chain in changed:
            table.chain(chain.name, chain.hook, chain.kind, chain.priority)
        for one in (*self.sets, *self.maps):
            if sets.get(one.name) != one:
                if one.name in sets:
                    table.clear(one.name)
                self._declare(table, one)
        for chain in changed:
            if chain.name in chains:
                table.empty(chain.name)
            for rule in chain.rules:
                table.rule(chain.name, *rule.expressions(table), comment=rule.comment)
        gone = chains.keys() - {one.name for one in self.chains}
        for name in gone:
            table.empty(name)
        for name in gone:
            table.remove_chain(name)
        for name in sets.keys() - {one.name for one in (*self.sets, *self.maps)}:
            table.remove_set(name)
        return table

    def _declare(self, table: Table, one: Networks | Served | Dispatch) -> None:
        if isinstance(one, Dispatch):
            ways = [(nftables.interface(interface), "goto", chain, "") for interface, chain in one.chains]
            table.verdict_map(one.name, nftables.INTERFACE_LENGTH, ways, key_type=nftables.INTERFACE_TYPE)
        elif isinstance(one, Served):
            address = nftables.ADDRESS_TYPES[self.family]
            kind = address << 12 | nftables.PROTOCOL_TYPE << 6 | nftables.SERVICE_TYPE
            table.set(one.name, table.length + 8, [served_key(*member) for member in one.members], key_type=kind)
        elif one.single:
            keys = [member.network_address.packed for member in one.members]
            table.set(one.name, table.length, keys, key_type=nftables.ADDRESS_TYPES[self.family])
        else:
            table.networks(one.name, one.members)

    def chain(self, name: str) -> Chain:
        """Raises StopIteration when there is none."""
        return next(one for one in self.chains if one.name == name)


def served_key(address: str, number: int, port: int) -> bytes:
    return nftables.key(ip_network(address).network_address.packed, bytes([number]), port.to_bytes(2, "big"))


def networks(family: int, members: Iterable[str]) -> tuple[Network, ...]:
    """Those of one family, none within another, in order."""
    mine: list[Any] = sorted({one for text in members if (one := ip_network(text, strict=False)).version == family})
    if len({one.prefixlen for one in mine}) > 1:
        mine = [one for one in mine if not any(one != other and one.subnet_of(other) for other in mine)]
    return tuple(mine)


def ipset(name: str) -> str:
    """A set's name as the tool `ipset` knows it."""
    return OF_SELECTORS.sub(r"\1:", name)


def iptables_chain(name: str) -> tuple[str, str]:
    """(table, chain) of what is called TABLE-CHAIN in nftables mode."""
    layered = LAYER.fullmatch(name)
    assert layered, name
    table, chain = layered.groups()
    if len(chain) > LONGEST_CHAIN and (parts := HASHED_CHAIN.fullmatch(chain)):
        chain = f"{parts[1]}_{digest(parts[2], LONGEST_CHAIN)}"[:LONGEST_CHAIN]
    return table, chain


def digest(text: str, length: int) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()[:length]


def _ip(family: int) -> str:
    return "ip" if family == 4 else "ip6"


def _unless(equal: bool) -> str:
    return "" if equal else "!= "


def _not(equal: bool) -> str:
    return "" if equal else "! "
