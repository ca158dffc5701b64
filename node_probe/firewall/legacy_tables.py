"""The rules of iptables-legacy as the kernel itself has them; without it a probe that has no `iptables-legacy-save`
beside it would name the rule that ended a packet by its number alone.

Rules are put into the words of iptables-save as far as they matter to whoever reads them, and to the engine: addresses,
interfaces, protocols, ports, marks, states, comments and the end. The rest stands in square brackets.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from node_probe.firewall.ruleset import CALICO, ENDS, HOOKS, IPTABLES_LEGACY, Chain, Rule, calico_comment

# linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h, linux/netfilter/x_tables.h: 64-bit layouts
GET_INFO, GET_ENTRIES = 64, 65
INFO = struct.Struct("=32sI5I5III")  # name, valid hooks, where each begins and ends, number of entries, size in bytes
ROOM = 40  # before the entries in the answer
NAME = 32  # bytes of a table's name
HEAD_OF_TARGET = 32  # of a match, too: its length, its name from the third byte on, its revision in the last one
DROPS, ACCEPTS, QUEUES, RETURNS = -1, -2, -4, -5
VERDICTS = {DROPS: "DROP", ACCEPTS: "ACCEPT", QUEUES: "QUEUE", RETURNS: "RETURN"}
IN_ORDER = tuple(HOOKS)  # of the kernel's numbers
HEAD_OF_CHAIN = b"ERROR\0"  # the target of the entry before a chain's first rule, and of the last entry of all
# linux/netfilter/ipset/ip_set.h
IP_SET, BY_INDEX, IPSET_PROTOCOL, SET = 83, 7, 6, struct.Struct("=II32s")
TRIES = 5  # a table may change between the question for its size and that for its rules

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the parts of an entry are, by address family."""

    level: int  # of the socket options
    address: int  # bytes
    interfaces: int
    protocol: int
    flags: int  # the bit of "goto" differs
    goes: int
    to_target: int  # two numbers: from the entry's beginning to its target, and to the next entry
    packets: int
    matches: int


LAYOUTS = {
    4: Layout(0, 4, 16, 80, 82, 2, 88, 96, 112),
    6: Layout(41, 16, 64, 128, 131, 4, 140, 152, 168),
}
# Inverted in an entry, by its flags: interface in, interface out, source, target, fragments, protocol.
VIA_IN, VIA_OUT, SOURCE, TARGET, FRAGMENT, PROTOCOL = 1, 2, 8, 16, 32, 64
FRAGMENTS_ALONE = 1  # of the other flags, of IPv4
PROTOCOLS = {
    1: "icmp",
    2: "igmp",
    4: "ipencap",
    6: "tcp",
    17: "udp",
    47: "gre",
    50: "esp",
    58: "ipv6-icmp",
    132: "sctp",
}
STATES = {1: "INVALID", 8: "NEW", 4: "RELATED", 2: "ESTABLISHED"}
STATE_OF_CONNTRACK = {**STATES, 256: "UNTRACKED", 64: "SNAT", 128: "DNAT"}
STATE_ALONE = {**STATES, 64: "UNTRACKED"}
STATE_ALIAS = 0x2000  # it was written as "state"
RPFILTER = {1: "--loose", 2: "--validmark", 4: "--accept-local", 8: "--invert"}
# linux/rtnetlink.h; the first is none
ADDRESS_TYPES = ("", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST", "BLACKHOLE", "UNREACHABLE", "PROHIBIT")
LIMITS = {4: "--limit-iface-in", 8: "--limit-iface-out"}
MULTIPORT = ("--sports", "--dports", "--ports")


@dataclass(frozen=True, slots=True)
class Table:
    """All entries of a table, one behind the other."""

    family: int
    name: str
    starts: dict[int, str]  # by offset: the built-in chain that begins there
    ends: dict[int, str]  # the same of its policy, an entry of its own
    data: bytes

    def offsets(self, at: int) -> tuple[int, int]:
        """Of the entry there, from its beginning to its target and to the next entry."""
        to_target, to_next = struct.unpack_from("=HH", self.data, at + LAYOUTS[self.family].to_target)
        return to_target, max(int(to_next), 1)

    def entries(self) -> Iterator[int]:
        at = 0
        while at < len(self.data):
            yield at
            at += self.offsets(at)[1]

    def first_rule(self, chain: str) -> int:
        """Where the rules of a chain begin that is not built in; -1: there is none. Does not read every entry."""
        named = chain.encode() + b"\0"
        place = self.data.find(named)
        while place >= 0:  # it may stand in a comment, too
            at = place - HEAD_OF_TARGET - LAYOUTS[self.family].matches
            if at >= 0 and self.chain(at) == chain:
                return at + self.offsets(at)[1]
            place = self.data.find(named, place + 1)
        return -1

    def built_in(self, chain: str) -> Iterator[int]:
        """The entries of a built-in chain, without its policy."""
        at = next((at for at, name in self.starts.items() if name == chain), len(self.data))
        end = next((at for at, name in self.ends.items() if name == chain), 0)
        while at < end:
            yield at
            at += self.offsets(at)[1]

    def target(self, at: int) -> str:
        """The name of its target; "" of one that only decides or leads to a chain."""
        return _text(self.data, at + self.offsets(at)[0] + 2, HEAD_OF_TARGET - 3)

    def verdict(self, at: int) -> int:
        """Where a rule leads to, or what it decides (below 0). 0 of one with another target: no chain is there."""
        if self.target(at):
            return 0
        return int(struct.unpack_from("=i", self.data, at + self.offsets(at)[0] + HEAD_OF_TARGET)[0])

    def chain(self, at: int) -> str:
        """The name of the chain that this entry comes before; "" of all others."""
        place = at + self.offsets(at)[0]
        headed = self.data.startswith(HEAD_OF_CHAIN, place + 2)
        return _text(self.data, place + HEAD_OF_TARGET, NAME) if headed else ""


def names(family: int) -> list[str]:
    """The tables that are here, of this thread's network namespace: to ask for another one would make it."""
    try:
        told = Path("/proc/thread-self/net", "ip6_tables_names" if family == 6 else "ip_tables_names").read_text()
    except FileNotFoundError:
        return []
    return told.split()


def read(family: int, name: str) -> Table:
    """One of the tables that are here. Raises OSError (EPERM: no NET_ADMIN)."""
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    with socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_RAW) as one:
        for left in reversed(range(TRIES)):
            try:
                told = INFO.unpack(_asked(one, family, GET_INFO, name.encode().ljust(INFO.size, b"\0")))
                size = told[13]
                request = name.encode().ljust(NAME, b"\0") + struct.pack("=I", size)
                data = _asked(one, family, GET_ENTRIES, request.ljust(ROOM + size, b"\0"))[ROOM:]
            except OSError as error:
                if error.errno != errno.EAGAIN or not left:
                    raise
            else:
                break
    hooks = [(n, chain) for n, chain in enumerate(IN_ORDER) if told[1] & 1 << n]
    starts = {told[2 + n]: chain for n, chain in hooks}
    return Table(family, name, starts, {told[7 + n]: chain for n, chain in hooks}, data)


def listed(family: int, only: Collection[tuple[str, str]] | None = None) -> list[Chain]:
    """The same as `ruleset.from_save` of what iptables-legacy-save prints, but for what a rule's text leaves out.

    only: (table, chain) whose rules are wanted; Calico's are always, all others have none then. Raises OSError.
    """
    return [chain for name in names(family) for chain in _chains(read(family, name), only)]


def _chains(table: Table, only: Collection[tuple[str, str]] | None) -> Iterator[Chain]:
    places = list(table.entries())
    heads = {at: name for at in places if (name := table.chain(at))}
    leads = {at + table.offsets(at)[1]: name for at, name in heads.items()}
    empty = Chain(backend=IPTABLES_LEGACY, family="ip6" if table.family == 6 else "ip", table=table.name, name="")
    chain, entries = empty, list[int]()

    def whole(chain: Chain, entries: list[int]) -> Chain:
        if only is not None and (chain.table, chain.name) not in only and not CALICO.search(chain.name):
            return chain
        return chain.with_rules(_rule(table, at, chain, number, leads) for number, at in enumerate(entries, 1))

    for at in places:
        if at in table.starts:
            name = table.starts[at]
            chain, entries = replace(empty, name=name, hook=HOOKS[name]), []
        if at in table.ends:
            policy = VERDICTS.get(table.verdict(at), "").lower()
            yield whole(replace(chain, policy=policy, packets=_packets(table, at)), entries)
            chain, entries = empty, []
        elif at in heads:
            if chain is not empty:
                yield whole(chain, entries[:-1])  # the last entry of a chain returns, and is no rule
            chain, entries = replace(empty, name=heads[at]), []
        else:
            entries.append(at)


def _packets(table: Table, at: int) -> int:
    return int(struct.unpack_from("=Q", table.data, at + LAYOUTS[table.family].packets)[0])


def _rule(table: Table, at: int, chain: Chain, number: int, leads: dict[int, str]) -> Rule:
    to_target, to_next = table.offsets(at)
    said, comments, digest = list(_head(table, at)), list[str](), ""
    place = at + LAYOUTS[table.family].matches
    while place < at + to_target:
        (length,) = struct.unpack_from("=H", table.data, place)
        name, revision = _text(table.data, place + 2, HEAD_OF_TARGET - 3), table.data[place + HEAD_OF_TARGET - 1]
        value = table.data[place + HEAD_OF_TARGET : place + length]
        if name == "comment":
            comment = _text(value, 0, len(value))
            found, told = calico_comment(comment)
            digest, comments = found or digest, comments + ([told] if told else [])
            said.append(f"-m comment --comment {_quoted(comment)}")
        else:
            said.append(_matched(name, revision, value))
        place += max(length, 1)
    verdict, targets = "", tuple[str, ...]()
    leads_to, end = table.verdict(at), table.target(at)
    if end:
        verdict = ENDS.get(end, "")
        data = table.data[at + to_target + HEAD_OF_TARGET : at + to_next]
        said.append(f"-j {end}{_told(end, table.data[at + to_target + HEAD_OF_TARGET - 1], data)}")
    elif leads_to < 0:
        verdict = ENDS.get(VERDICTS.get(leads_to, ""), "")
        said.append(f"-j {VERDICTS.get(leads_to, '[verdict]')}")
    elif leads_to in leads:
        layout = LAYOUTS[table.family]
        goes = table.data[at + layout.flags] & layout.goes
        verdict, targets = "goto" if goes else "jump", (leads[leads_to],)
        said.append(f"-{'g' if goes else 'j'} {leads[leads_to]}")
    return Rule(
        backend=chain.backend,
        family=chain.family,
        table=chain.table,
        chain=chain.name,
        number=number,
        text=" ".join([f"-A {chain.name}", *said]),
        comment="; ".join(comments),
        digest=digest,
        verdict=verdict,
        targets=targets,
        packets=_packets(table, at),
    )


def _head(table: Table, at: int) -> Iterator[str]:
    layout = LAYOUTS[table.family]
    inverted = table.data[at + layout.flags + 1]

    def told(bit: int, words: str) -> str:
        return f"! {words}" if inverted & bit else words

    each = layout.address
    source, target, source_mask, target_mask = (
        table.data[at + each * n : at + each * (n + 1)] for n in range(4)
    )  # fmt: skip
    for bit, option, value, mask in ((SOURCE, "-s", source, source_mask), (TARGET, "-d", target, target_mask)):
        if any(mask):
            yield told(bit, f"{option} {_address(value)}/{_length(mask)}")
    for bit, option, n in ((VIA_IN, "-i", 0), (VIA_OUT, "-o", 1)):
        name = _text(table.data, at + layout.interfaces + 16 * n, 16)
        mask = table.data[at + layout.interfaces + 16 * (n + 2) : at + layout.interfaces + 16 * (n + 3)]
        if name:  # all that begin so are told by a + (which iptables leaves in the name), or by the mask alone
            whole = name.endswith("+") or mask[min(len(name.encode()), 15)]
            yield told(bit, f"{option} {name}{'' if whole else '+'}")
    (protocol,) = struct.unpack_from("=H", table.data, at + layout.protocol)
    if protocol:
        yield told(PROTOCOL, f"-p {PROTOCOLS.get(protocol, protocol)}")
    if table.family == 4 and table.data[at + layout.flags] & FRAGMENTS_ALONE:
        yield told(FRAGMENT, "-f")


@functools.cache
def _length(mask: bytes) -> str:
    """Of a prefix; a mask that is none stands for itself."""
    bits = f"{int.from_bytes(mask, 'big'):0{len(mask) * 8}b}"
    return str(bits.count("1")) if "01" not in bits else _address(mask)


def _address(value: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(value) == 4 else socket.AF_INET6, value)


def _matched(name: str, revision: int, value: bytes) -> str:
    more = MATCHES.get((name, revision))
    if more is _conntrack and struct.unpack_from("=H", value, 146)[0] & STATE_ALIAS:
        return f"-m state{more(value).replace('--ctstate', '--state')}"
    return f"-m {name}{more(value)}" if more else f"-m [{name}]"


def _told(name: str, revision: int, value: bytes) -> str:
    """What is said of a target behind its name."""
    if (name, revision) == ("MARK", 2):
        mark, mask = struct.unpack_from("=II", value)
        return f" --set-xmark 0x{mark:x}/0x{mask:x}"
    return " [...]" if any(value) and name not in ENDS else ""


def _ports(data: bytes, inverted: int, flags: int = 0) -> str:
    found = ""
    sides = ((1, "--sport", struct.unpack_from("=HH", data)), (2, "--dport", struct.unpack_from("=HH", data, 4)))
    for bit, option, (low, high) in sides:
        if (low, high) != (0, 65535) or inverted & bit:
            found += f" {'! ' if inverted & bit else ''}{option} {low}{f':{high}' if high != low else ''}"
    return f"{found} [flags]" if flags else found


def _several_ports(data: bytes) -> str:
    kind, count = data[0], min(data[1], 15)
    ports = struct.unpack_from("=15H", data, 2)
    ranges, inverted = data[32:47], data[47]
    words = "".join(f"{port}{':' if ranges[n] else ','}" for n, port in enumerate(ports[:count])).rstrip(",:")
    return f" {'! ' if inverted else ''}{MULTIPORT[min(kind, 2)]} {words}"


def _mark(data: bytes) -> str:
    mark, mask = struct.unpack_from("=II", data)
    whole = "" if mask == 0xFFFFFFFF else f"/0x{mask:x}"
    return f" {'! ' if data[8] else ''}--mark 0x{mark:x}{whole}"


def _address_type(data: bytes) -> str:
    source, target, flags = struct.unpack_from("=HHI", data)
    found = ""
    for bit, option, types in ((1, "--src-type", source), (2, "--dst-type", target)):
        names = ",".join(name for n, name in enumerate(ADDRESS_TYPES) if types & 1 << n)
        found += f" {'! ' if flags & bit else ''}{option} {names}" if names else ""
    return found + "".join(f" {word}" for bit, word in LIMITS.items() if flags & bit)


def _conntrack(data: bytes) -> str:
    matched, inverted, states = struct.unpack_from("=HHH", data, 146)
    said = f" {'! ' if inverted & 1 else ''}--ctstate {_states(STATE_OF_CONNTRACK, states)}" if matched & 1 else ""
    return f"{said} [more]" if matched & ~(1 | STATE_ALIAS) else said


def _set(data: bytes) -> str:
    index, dimensions, flags = struct.unpack_from("=HBB", data)
    sides = ",".join("src" if flags & 2 << n else "dst" for n in range(dimensions))
    return f" {'! ' if flags & 1 else ''}--match-set {_name_of_set(index)} {sides}"


def _name_of_set(index: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as one:  # of IPv6's sets, too
        try:
            asked = SET.pack(BY_INDEX, IPSET_PROTOCOL, struct.pack("=H", index))
            return _text(_asked(one, 4, IP_SET, asked), 8, NAME)
        except OSError:
            return "[name]"


def _states(names: dict[int, str], bits: int) -> str:
    return ",".join(name for bit, name in names.items() if bits & bit)


# What matches say behind their names, by name and revision.
MATCHES: dict[tuple[str, int], Callable[[bytes], str]] = {
    ("tcp", 0): lambda data: _ports(data, data[11], data[9]),
    ("udp", 0): lambda data: _ports(data, data[8]),
    ("multiport", 1): _several_ports,
    ("addrtype", 1): _address_type,
    ("mark", 1): _mark,
    ("state", 0): lambda data: f" --state {_states(STATE_ALONE, *struct.unpack_from('=I', data))}",
    ("rpfilter", 0): lambda data: "".join(f" {word}" for bit, word in RPFILTER.items() if data[0] & bit),
    **{("conntrack", revision): _conntrack for revision in (2, 3)},
    **{("set", revision): _set for revision in (1, 2, 3, 4)},
}


def _quoted(comment: str) -> str:
    escaped = comment.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _text(data: bytes, at: int, longest: int) -> str:
    return data[at : at + longest].partition(b"\0")[0].decode(errors="replace")


def _asked(one: socket.socket, family: int, option: int, request: bytes) -> bytes:
    """getsockopt with something to say, which Python's has not. Raises OSError."""
    buffer = ctypes.create_string_buffer(request, len(request))
    length = ctypes.c_uint(len(request))
    if _libc.getsockopt(one.fileno(), LAYOUTS[family].level, option, buffer, ctypes.byref(length)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return buffer.raw[: length.value]
