"""Whether what a node forwards meets Calico's rules, and what its table of connections holds; without it a policy that
is off, a second set of Calico's rules and a full table would look like a node in order.

A few objects are asked for by name: the cost does not grow with the node's other rules.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from facts import CalicoFirewall, ConnectionTable, Fact, NodeAsk
from node_probe import nfnetlink
from node_probe.firewall import legacy, legacy_tables
from node_probe.netlink_messages import attributes
from node_probe.view import View

FORWARD = b"cali-FORWARD\0"
# Where Felix writes, in nft's words: table, base chain, the chain of Calico that it leads to.
PLACES = {
    "nftables": ("calico", "filter-FORWARD", "filter-cali-FORWARD"),
    "iptables-nft": ("filter", "FORWARD", "cali-FORWARD"),
}
IPTABLES_LEGACY = "iptables-legacy"
FROM_PODS, TO_PODS = "filter-cali-from-wl-dispatch", "filter-cali-to-wl-dispatch"
VXLAN_PEERS = {4: "cali40all-vxlan-net", 6: "cali60all-vxlan-net"}
# linux/netfilter/nf_tables.h
NEW_ELEMENTS, GET_ELEMENTS = 12, 13
TABLE, CHAIN, ELEMENTS = 1, 2, 3
ABSENT = (errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT)
COUNTERS = Path("/proc/thread-self/net/stat/nf_conntrack")  # of the namespace of the thread that reads
COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")
LIMIT = Path("/proc/sys/net/netfilter/nf_conntrack_max")


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """ConnectionTable, once; CalicoFirewall. Raises OSError (EPERM: no NET_ADMIN)."""
    if ask.felix or ask.family == 4:  # it is of the whole node, which may be asked several times
        yield from _connections(ask.node)
    holding, entered = [], []
    from_pods = to_pods = vxlan_peers = -1
    with nfnetlink.netfilter() as wire:
        for backend, (table, base, chain) in PLACES.items():
            if not _rules(wire, ask.family, table, chain):
                continue
            holding.append(backend)
            if any(FORWARD in rule for rule in _rules(wire, ask.family, table, base)):
                entered.append(backend)
            if backend == "nftables":
                from_pods = _elements(wire, ask.family, table, FROM_PODS)
                to_pods = _elements(wire, ask.family, table, TO_PODS)
                vxlan_peers = _elements(wire, ask.family, table, VXLAN_PEERS[ask.family])
    if legacy.holds_tables(ask.family):
        holds, leads = _legacy(ask.family)
        holding += [IPTABLES_LEGACY] if holds else []
        entered += [IPTABLES_LEGACY] if holds and leads else []
    yield CalicoFirewall(
        node=ask.node,
        family=ask.family,
        backends=tuple(holding),
        entered=tuple(entered),
        from_pods=from_pods,
        to_pods=to_pods,
        vxlan_peers=vxlan_peers,
    )


def _connections(node: str) -> Iterator[ConnectionTable]:
    try:
        count, limit = int(COUNT.read_text()), int(LIMIT.read_text())
        names, *processors = COUNTERS.read_text().splitlines()
    except FileNotFoundError:  # none are tracked here
        yield ConnectionTable(node=node, count=0, limit=0, refused=0)
        return
    counters = [dict(zip(names.split(), line.split(), strict=False)) for line in processors]
    refused = sum(int(one.get("drop", "0"), 16) for one in counters)
    yield ConnectionTable(node=node, count=count, limit=limit, refused=refused)


# -- nf_tables


def _rules(wire: socket.socket, family: int, table: str, chain: str) -> list[bytes]:
    """The rules of a chain; [] where there is none. Raises OSError."""
    named = nfnetlink.text(TABLE, table) + nfnetlink.text(CHAIN, chain)
    told = _dump(wire, family, nfnetlink.GET_RULE, nfnetlink.NEW_RULE, named)
    # An old kernel does not heed which chain was asked for.
    return [body for body in told if attributes(body).get(CHAIN, b"").rstrip(b"\0") == chain.encode()]


def _elements(wire: socket.socket, family: int, table: str, name: str) -> int:
    """How many a set or map holds; -1: there is none. Raises OSError."""
    named = nfnetlink.text(TABLE, table) + nfnetlink.text(CHAIN, name)
    try:
        told = list(_dumped(wire, family, GET_ELEMENTS, NEW_ELEMENTS, named))
    except OSError as error:
        if error.errno in ABSENT:
            return -1
        raise
    return sum(_items(attributes(body).get(ELEMENTS, b"")) for body in told)


def _items(data: bytes) -> int:
    count = offset = 0
    while offset + 4 <= len(data):
        (length,) = struct.unpack_from("=H", data, offset)
        if length < 4:
            break
        count, offset = count + 1, offset + (length + 3 & ~3)
    return count


def _dump(wire: socket.socket, family: int, asked: int, answered: int, named: bytes) -> list[bytes]:
    try:
        return list(_dumped(wire, family, asked, answered, named))
    except OSError as error:
        if error.errno in ABSENT:
            return []
        raise


def _dumped(wire: socket.socket, family: int, asked: int, answered: int, named: bytes) -> Iterator[bytes]:
    of = nfnetlink.FAMILIES[family]
    wire.send(nfnetlink.message(nfnetlink.NFTABLES << 8 | asked, nfnetlink.DUMP, 1, named, of))
    return (body for _, body in nfnetlink.dumped(wire, nfnetlink.NFTABLES << 8 | answered))


# -- iptables-legacy


def _legacy(family: int) -> tuple[bool, bool]:
    """Has the table `filter` a chain of Calico with rules for what is forwarded, and does FORWARD lead there?"""
    if "filter" not in legacy_tables.names(family):
        return False, False
    table = legacy_tables.read(family, "filter")
    first = table.first_rule(FORWARD.rstrip(b"\0").decode())
    # Behind its rules each chain has an entry that returns.
    if first < 0 or table.verdict(first) == legacy_tables.RETURNS:
        return False, False
    return True, any(table.verdict(at) == first for at in table.built_in("FORWARD"))
