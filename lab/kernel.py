"""Reads and writes one network namespace in iproute2's nouns; without it every part of the lab would speak netlink."""

from __future__ import annotations

import contextlib
import errno
from dataclasses import dataclass
from pathlib import Path
from socket import AF_BRIDGE, AF_INET, AF_INET6, if_nameindex, if_nametoindex
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from lab import dumps
from lab.namespaces import Namespace
from node_probe.netlink import NEIGHBOR_STATES, OPERSTATES, ROUTE_TYPES
from node_probe.nfnetlink import ACK, BATCH_BEGIN, BATCH_END, NFTABLES, message, netfilter

KERNEL, BOOT, BIRD, FELIX = 2, 3, 12, 80  # route protocols
GLOBAL, LINK, HOST = 0, 253, 254  # route scopes
MAIN, LOCAL = 254, 255  # route tables
UP, LOWER_UP = 0x1, 0x10000
ONLINK = 4
CLONED = 0x200  # flag of a route that the kernel made for one address, by what it was told of the path there
PERMANENT, FAILED, REACHABLE = 0x80, 0x20, 0x02
SELF = 2
DELETE_TABLE, CONNTRACK, DELETE_CONNECTION = 2, 1, 2
REFUSING = ("blackhole", "unreachable", "prohibit")
# linux/if_link.h, linux/if_addr.h, linux/rtnetlink.h, linux/fib_rules.h, linux/neighbour.h, RFC 2863
IFLA_ADDRESS, IFNAME, IFLA_MTU, IFLA_TXQLEN, IFLA_OPERSTATE, IFLA_LINKINFO = 1, 3, 4, 13, 16, 18
INFO_KIND, INFO_DATA = 1, 2
VXLAN_ID, VXLAN_LINK, VXLAN_LOCAL, VXLAN_LEARNING, VXLAN_PORT, VXLAN_LOCAL6 = 1, 3, 4, 7, 15, 17
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_TABLE, RTAX_MTU = 1, 4, 5, 6, 7, 8, 15, 2
FRA_SRC, FRA_PRIORITY, FRA_TABLE = 2, 6, 15
NDA_DST, NDA_LLADDR = 1, 2
FAMILIES = {4: AF_INET, 6: AF_INET6}
DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}  # the destination of the default route
GONE = (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL)


def family_of(address: str) -> int:
    """4 or 6, of an address with or without its length."""
    return 6 if ":" in address else 4


@dataclass(frozen=True, slots=True)
class Route:
    """A route of either family. `destination` is always ADDRESS/LENGTH; 0.0.0.0/0 and ::/0 are the default routes.

    The kernel knows no scope of an IPv6 route, and gives one without a metric the metric 1024.
    """

    destination: str
    kind: str = "unicast"
    gateway: str = ""
    device: str = ""
    protocol: int = BOOT
    scope: int = GLOBAL
    metric: int = 0
    onlink: bool = False
    mtu: int = 0
    source: str = ""
    table: int = MAIN

    @property
    def key(self) -> tuple[str, int, int]:
        """What the kernel tells routes apart by when it replaces one."""
        return (self.destination, self.metric, self.table)


@dataclass(frozen=True, slots=True)
class Link:
    """A network device; the vxlan fields are 0 or "" for every other kind."""

    index: int
    name: str
    up: bool
    lower_up: bool
    state: str
    mac: str
    mtu: int
    kind: str = ""
    vni: int = 0
    port: int = 0
    local: str = ""
    parent: str = ""
    learning: bool = False
    txqlen: int = 0


class Kernel:
    """One namespace's network state. Every method may raise OSError, also for what pyroute2 calls a NetlinkError."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace

    def _ask(self, call: str, *args: Any, **named: Any) -> Any:
        try:
            return getattr(self.namespace.route, call)(*args, **named)
        except NetlinkError as error:
            raise OSError(error.code, f"{call} {args} {named}: {error}") from error

    # ---- reading

    def links(self) -> dict[str, Link]:
        """By name."""
        found = self._dump(dumps.LINKS)
        names = {fields[2]: dumps.text(has[IFNAME]) for fields, has in found}
        return {link.name: link for link in (_link(fields, has, names) for fields, has in found)}

    def link(self, name: str) -> Link | None:
        return self.links().get(name)

    def index(self, name: str) -> int:
        """Raises OSError ENODEV."""
        with self.namespace.entered():
            try:
                return if_nametoindex(name)
            except OSError as error:
                raise OSError(errno.ENODEV, f"there is no device {name} in {self.namespace.name}") from error

    def addresses(self, device: str, family: int = 4) -> list[str]:
        """As ADDRESS/LENGTH; of IPv6 the link-local ones too."""
        index = self.index(device)
        return [
            f"{dumps.address(has.get(IFA_LOCAL) or has.get(IFA_ADDRESS))}/{length}"
            for (_, length, _, _, of), has in self._dump(dumps.ADDRESSES, FAMILIES[family])
            if of == index
        ]

    def routes(self, family: int = 4) -> list[Route]:
        """All tables."""
        names = self._names()
        return [_route(fields, has, names, family) for fields, has in self._dump(dumps.ROUTES, FAMILIES[family])]

    def rules(self, family: int = 4) -> list[tuple[int, int, str]]:
        """(priority, table, source)"""
        found = []
        for fields, has in self._dump(dumps.RULES, FAMILIES[family]):
            table = dumps.number(has.get(FRA_TABLE)) or fields[4]
            source = dumps.address(has.get(FRA_SRC))
            found.append((dumps.number(has.get(FRA_PRIORITY)), table, f"{source}/{fields[2]}" if source else "all"))
        return found

    def neighbors(self, device: str = "", family: int = 4) -> list[tuple[str, str, str, str]]:
        """(address, device, mac, state)"""
        names = self._names(device)
        return [
            (dumps.address(has.get(NDA_DST)), names.get(index, ""), dumps.mac(has.get(NDA_LLADDR)), _state(state))
            for (_, index, state, _, _), has in self._dump(dumps.NEIGHBORS, FAMILIES[family])
            if not device or index in names
        ]

    def fdb(self, device: str = "") -> list[tuple[str, str, str, str]]:
        """(mac, device, outer address or "", state) of the entries marked `self`."""
        names = self._names(device)
        return [
            (dumps.mac(has.get(NDA_LLADDR)), names.get(index, ""), dumps.address(has.get(NDA_DST)), _state(state))
            for (_, index, state, _, _), has in self._dump(dumps.NEIGHBORS, AF_BRIDGE)
            if not device or index in names
        ]

    def _dump(self, what: int, family: int = 0) -> list[tuple[dumps.Fields, dumps.Attributes]]:
        return self.namespace.reader.dump(what, family)

    def _names(self, device: str = "") -> dict[int, str]:
        """Of the devices, or of that one if it is there, by index; a dump would tell all of them as well."""
        with self.namespace.entered():
            return {index: name for index, name in if_nameindex() if not device or name == device}

    # ---- writing

    def set_link(self, name: str, **settings: Any) -> None:
        """`up=True`, `mac=`, `mtu=`, `txqlen=`, `master=` (a device's name)."""
        named: dict[str, Any] = {}
        if "up" in settings:
            named["state"] = "up" if settings["up"] else "down"
        if "mac" in settings:
            named["address"] = settings["mac"]
        if "mtu" in settings:
            named["mtu"] = settings["mtu"]
        if "txqlen" in settings:
            named["txqlen"] = settings["txqlen"]
        if "master" in settings:
            named["master"] = self.index(settings["master"])
        self._ask("link", "set", index=self.index(name), **named)

    def add_link(self, **settings: Any) -> None:
        """In pyroute2's words: kind=, ifname=, peer=, ..."""
        self._ask("link", "add", **settings)

    def delete_link(self, name: str) -> None:
        """Also when there is none."""
        with contextlib.suppress(OSError):
            self._ask("link", "del", index=self.index(name))

    def add_address(self, device: str, address: str) -> None:
        """ADDRESS/LENGTH; also when it is there already."""
        ip, _, length = address.partition("/")
        try:
            self._ask("addr", "add", index=self.index(device), address=ip, prefixlen=int(length))
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise

    def delete_address(self, device: str, address: str) -> None:
        """Also when it is not there."""
        ip, _, length = address.partition("/")
        with _already_gone():
            self._ask("addr", "del", index=self.index(device), address=ip, prefixlen=int(length))

    def put_route(self, route: Route) -> None:
        """Adds it, or replaces the one with the same destination and metric."""
        self._ask("route", "replace", **self._route_words(route))

    def delete_route(self, route: Route) -> None:
        """Exactly this one; also when it is not there."""
        words = self._route_words(route)
        words.pop("metrics", None)
        words.pop("flags", None)
        with _already_gone():
            self._ask("route", "del", **words)

    def _route_words(self, route: Route) -> dict[str, Any]:
        words: dict[str, Any] = {
            "dst": route.destination,
            "proto": route.protocol,
            "scope": route.scope,
            "type": route.kind,
            "table": route.table,
        }
        if route.gateway:
            words["gateway"] = route.gateway
        if route.device:
            words["oif"] = self.index(route.device)
        if route.metric:
            words["priority"] = route.metric
        if route.onlink:
            words["flags"] = ONLINK
        if route.mtu:
            words["metrics"] = {"mtu": route.mtu}
        if route.source:
            words["prefsrc"] = route.source
        return words

    def forget_paths(self) -> None:
        """What the kernel was told of the way to single addresses (path MTU), which it else remembers for ten minutes.
        Whoever knows of a narrow way announces smaller packets (MSS), long after it is wide again."""
        with self.namespace.entered():
            Path("/proc/sys/net/ipv4/route/flush").write_text("1")
        for fields, has in self._dump(dumps.ROUTES, AF_INET6):  # a flush spares those that have not expired
            if fields[-1] & CLONED:
                device, address = dumps.number(has.get(RTA_OIF)), dumps.address(has.get(RTA_DST))
                with _already_gone():
                    self._ask("route", "del", dst=f"{address}/128", oif=device, flags=CLONED, family=AF_INET6)

    def put_rule(self, priority: int, table: int, source: str) -> None:
        """What comes from `source`, ADDRESS/LENGTH, looks into `table`."""
        address, _, length = source.partition("/")
        family = FAMILIES[family_of(source)]
        self._ask("rule", "add", priority=priority, table=table, src=address, src_len=int(length), family=family)

    def put_marked_rule(self, priority: int, table: int, mark: int, family: int = 4) -> None:
        """What carries these bits of a firewall's mark looks into `table`."""
        self._ask("rule", "add", priority=priority, table=table, fwmark=mark, fwmask=mark, family=FAMILIES[family])

    def delete_rule(self, priority: int, table: int, family: int = 4) -> None:
        """Whatever it does: look into the table, or refuse."""
        with _already_gone():
            self._ask("rule", "del", priority=priority, table=table, action=0, family=FAMILIES[family])

    def flush_firewall(self) -> None:
        """Removes every nftables table, iptables-nft's too, as `nft flush ruleset`; a kernel without them has none."""
        begin, end = (message(kind, 0, 0, b"", resource=NFTABLES) for kind in (BATCH_BEGIN, BATCH_END))
        self._tell_netfilter(begin + message(NFTABLES << 8 | DELETE_TABLE, ACK, 0, b"") + end)

    def forget_connections(self) -> None:
        """As `conntrack -F`: a known one is given other addresses, or let pass, as the rules wanted when it began."""
        self._tell_netfilter(message(CONNTRACK << 8 | DELETE_CONNECTION, ACK, 0, b""))

    def _tell_netfilter(self, messages: bytes) -> None:
        """A kernel without what they are about has nothing of it."""
        with self.namespace.entered():
            wire = netfilter()
        with wire, contextlib.suppress(OSError):
            wire.send(messages)
            wire.recv(4096)

    def put_neighbor(self, device: str, address: str, mac: str) -> None:
        """A permanent entry."""
        self._ask("neigh", "replace", dst=address, lladdr=mac, ifindex=self.index(device), state=PERMANENT)

    def put_learned_neighbor(self, device: str, address: str, mac: str) -> None:
        """An entry as after an answer: good for 15 seconds at least, then checked."""
        self._ask("neigh", "replace", dst=address, lladdr=mac, ifindex=self.index(device), state=REACHABLE)

    def put_failed_neighbor(self, device: str, address: str) -> None:
        """An entry as the kernel leaves it where nobody answers."""
        self._ask("neigh", "replace", dst=address, ifindex=self.index(device), state=FAILED)

    def delete_neighbor(self, device: str, address: str) -> None:
        """Also when it is not there."""
        with _already_gone():
            self._ask("neigh", "del", dst=address, ifindex=self.index(device))

    def put_fdb(self, device: str, mac: str, peer: str) -> None:
        """Frames for MAC go to the node `peer`, and only there."""
        self._ask("fdb", "replace", ifindex=self.index(device), lladdr=mac, dst=peer, state=PERMANENT, flags=SELF)

    def delete_fdb(self, device: str, mac: str) -> None:
        """Every entry for MAC; also when there is none."""
        index = self.index(device)
        for found, _, outer, _ in self.fdb(device):
            if found == mac and outer:
                with _already_gone():
                    self._ask("fdb", "del", ifindex=index, lladdr=mac, dst=outer)


@contextlib.contextmanager
def _already_gone() -> Any:
    try:
        yield
    except OSError as error:
        if error.errno not in GONE:
            raise


def _state(bits: int) -> str:
    """As iproute2 words it: a permanent entry is permanent, whatever else it is."""
    return NEIGHBOR_STATES[PERMANENT] if bits & PERMANENT else NEIGHBOR_STATES.get(bits, "NONE")


def _link(fields: dumps.Fields, has: dumps.Attributes, names: dict[int, str]) -> Link:
    _, _, index, flags, _ = fields
    info = dumps.attributes(has.get(IFLA_LINKINFO, b""))
    kind = dumps.text(info.get(INFO_KIND))
    vxlan = dumps.attributes(info.get(INFO_DATA, b"")) if kind == "vxlan" else {}
    return Link(
        index=index,
        name=dumps.text(has[IFNAME]),
        up=bool(flags & UP),
        lower_up=bool(flags & LOWER_UP),
        state=OPERSTATES[dumps.number(has.get(IFLA_OPERSTATE))],
        mac=dumps.mac(has.get(IFLA_ADDRESS)),
        mtu=dumps.number(has.get(IFLA_MTU)),
        kind=kind,
        vni=dumps.number(vxlan.get(VXLAN_ID)),
        port=int.from_bytes(vxlan.get(VXLAN_PORT, b""), "big"),
        local=dumps.address(vxlan.get(VXLAN_LOCAL) or vxlan.get(VXLAN_LOCAL6)),
        parent=names.get(dumps.number(vxlan.get(VXLAN_LINK)), ""),
        learning=bool(dumps.number(vxlan.get(VXLAN_LEARNING))),
        txqlen=dumps.number(has.get(IFLA_TXQLEN)),
    )


def _route(fields: dumps.Fields, has: dumps.Attributes, names: dict[int, str], family: int) -> Route:
    _, length, _, _, table, protocol, scope, kind_number, flags = fields
    kind = ROUTE_TYPES.get(kind_number, str(kind_number))
    metrics = dumps.attributes(has.get(RTA_METRICS, b""))
    return Route(
        destination=f"{dumps.address(has.get(RTA_DST)) or DEFAULT[family].partition('/')[0]}/{length}",
        kind=kind,
        gateway=dumps.address(has.get(RTA_GATEWAY)),
        device="" if kind in REFUSING else names.get(dumps.number(has.get(RTA_OIF)), ""),  # IPv6 has them on lo
        protocol=protocol,
        scope=scope,
        metric=dumps.number(has.get(RTA_PRIORITY)),
        onlink=bool(flags & ONLINK),
        mtu=dumps.number(metrics.get(RTAX_MTU)),
        source=dumps.address(has.get(RTA_PREFSRC)),
        table=dumps.number(has.get(RTA_TABLE)) or table,
    )
