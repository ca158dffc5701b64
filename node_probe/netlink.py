"""What one network namespace's kernel says about one thing at a time; without it nothing below the API could be seen.

Reading is done with structs over one socket: a targeted get costs microseconds and does not grow with the tables.
Nothing here writes.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from node_probe.netlink_messages import S32, U32, NetlinkError, NetlinkSocket, attribute, attributes, text

# linux/rtnetlink.h, linux/net_namespace.h, linux/inet_diag.h
RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE, RTM_GETNEIGH, RTM_GETNSID = 18, 22, 26, 30, 90
RTM_GETNEXTHOP, NHA_BLACKHOLE = 106, 4
RTM_F_LOOKUP_TABLE, RTM_F_FIB_MATCH, RTNH_F_ONLINK = 0x1000, 0x2000, 0x4
RT_TABLE_MAIN = 254
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
INET_DIAG, INET_DIAG_SKV6ONLY = 72, 11
PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1}  # of IPv4; IPv6 has an ICMP of its own
TCP_LISTEN, INET_DIAG_QUEUES = 10, 56  # state, and where inet_diag_msg has idiag_rqueue and idiag_wqueue
LISTENING = {"tcp": (socket.IPPROTO_TCP, TCP_LISTEN), "udp": (socket.IPPROTO_UDP, 7)}  # unconnected: TCP_CLOSE
FIRST_OF_CLIENTS = 32768  # net.ipv4.ip_local_port_range
RTEXT_FILTER_SKIP_STATS = 8
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_OPERSTATE, IFLA_LINKINFO = 1, 3, 4, 5, 16, 18
IFLA_MASTER, IFLA_AF_SPEC, IFLA_EXT_MASK, IFLA_LINK_NETNSID = 10, 26, 29, 37
IFLA_XDP, IFLA_XDP_ATTACHED = 43, 2
IFLA_INET6_CONF, DEVCONF_DISABLE_IPV6 = 2, 26
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
IFLA_VXLAN_ID, IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL, IFLA_VXLAN_PORT, IFLA_VXLAN_LOCAL6 = 1, 3, 4, 15, 17
IFLA_VXLAN_COLLECT_METADATA = 25
IFA_ADDRESS, IFA_LOCAL, IFA_F_DADFAILED = 1, 2, 0x08
RTA_DST, RTA_SRC, RTA_IIF, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 2, 3, 4, 5, 6, 7
RTA_METRICS, RTA_MULTIPATH, RTA_TABLE, RTA_VIA, RTAX_MTU = 8, 9, 15, 18, 2
RTA_IP_PROTO, RTA_SPORT, RTA_DPORT, RTA_NH_ID = 27, 28, 29, 30
NDA_DST, NDA_LLADDR, NDA_PORT, NDA_VNI, NDA_IFINDEX = 1, 2, 6, 7, 8
RTM_GETRULE, FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_FWMASK, FIB_RULE_INVERT = 34, 6, 10, 15, 16, 0x2
FRA_DST, FRA_SRC, FRA_IIFNAME, FRA_OIFNAME, FRA_IP_PROTO, FRA_SPORT, FRA_DPORT = 1, 2, 3, 17, 22, 23, 24
OWN_PACKETS = "lo"  # where rules have what the node itself sends come in
RULE_SAYS = {6: "blackhole", 7: "unreachable", 8: "prohibit"}
RTM_GETNEIGHTBL, NDTA_THRESH3, NDTA_CONFIG, NDTA_STATS = 66, 4, 5, 7
NTF_SELF, AF_BRIDGE, NUD_PERMANENT = 2, 7, 128
NETNSA_NSID, NETNSA_FD = 1, 3
IFF_UP, IFF_LOWER_UP = 0x1, 0x10000
OPERSTATES = ("UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP")
CUT_OF_ANOTHER = ("vlan", "macvlan", "ipvlan")
COMBINING = ("bond", "team", "bridge")
ROUTE_TYPES = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    4: "anycast",
    5: "multicast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
    9: "throw",
}
NEIGHBOR_STATES = {
    1: "INCOMPLETE",
    2: "REACHABLE",
    4: "STALE",
    8: "DELAY",
    16: "PROBE",
    32: "FAILED",
    64: "NOARP",
    NUD_PERMANENT: "PERMANENT",
}
# The error of a lookup that ended in an entry of this type. A `throw` entry sends the kernel on to the next table, and
# that seldom has a way.
BLACKHOLE = 6
REFUSALS = {errno.EINVAL: BLACKHOLE, errno.EHOSTUNREACH: 7, errno.EACCES: 8, errno.ENETUNREACH: 9}

LINK = struct.Struct("=BxHiII")
ROUTE = struct.Struct("=BBBBBBBBI")
TYPE_OF_ROUTE = 7  # where it stands in that
NEIGHBOR = struct.Struct("=BxxxiHBB")
NEXT_HOP = struct.Struct("=HBBi")
RULE = struct.Struct("=BBBBBBBBI")  # struct fib_rule_hdr
NEXT_HOP_OBJECT = 8  # bytes of struct nhmsg
PORT = struct.Struct("!H")


@dataclass(frozen=True, slots=True)
class Device:
    """`ip -d link show`. Numbers that are not there are -1, texts ""."""

    index: int
    name: str
    up: bool
    lower_up: bool
    operstate: str
    mac: str
    mtu: int
    kind: str
    link: int  # index of the device below, or of a veth's other end
    link_namespace: int  # this namespace's id for the one `link` is in; -1: this one, or none
    vni: int
    vxlan_port: int
    vxlan_local: str
    ipv6: bool  # False: it carries none, being disabled there, or because the MTU is below 1280
    program: bool  # XDP: it decides on what comes in


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a device."""

    device: int
    address: str
    length: int
    duplicate: bool  # IPv6: somebody else on this link has it, so the kernel does not use it


@dataclass(frozen=True, slots=True)
class NeighborTable:
    """One family's, for all of the machine's namespaces."""

    entries: int
    limit: int  # gc_thresh3
    refused: int  # times an entry was not made because the table was full


@dataclass(frozen=True, slots=True)
class Route:
    """A routing entry. next_hop "" for a link-scope route, device -1 where the entry names none (blackhole)."""

    type: str
    destination: str
    length: int
    next_hop: str
    device: int
    table: int
    protocol: int
    scope: int
    metric: int
    onlink: bool
    preferred_source: str  # what the kernel's own packets carry; "" for an input lookup
    several: tuple[tuple[str, int], ...] = ()  # of an entry with several: each next hop and its device
    mtu: int = 0  # 0: its device's
    next_hop_object: int = 0  # number of the one (`ip nexthop`) that says where it leads; 0: it says so itself

    @property
    def prefix(self) -> str:
        """10.244.1.0/26"""
        return f"{self.destination}/{self.length}"


@dataclass(frozen=True, slots=True)
class Ports:
    """What a rule may ask of a packet beside its addresses. "", 0: not known."""

    protocol: str = ""  # "icmp" | "tcp" | "udp"
    source: int = 0
    target: int = 0


ANY_PORTS = Ports()


@dataclass(frozen=True, slots=True)
class Entry:
    """A neighbor or forwarding database entry: address and MAC, "" where it has none."""

    address: str
    mac: str
    state: str
    # Of a forwarding entry with a UDP port or VNI of its own, another one than its device's; else -1.
    port: int = -1
    vni: int = -1
    via: int = -1  # index of the device its packets leave by, where it names one


@dataclass(frozen=True, slots=True)
class Bound:
    """A waiting socket: its address, "0.0.0.0" and "::" for all, and the families whose packets it takes."""

    address: str
    families: tuple[int, ...]
    waiting: int = -1  # of TCP: connections its program has not taken yet...
    backlog: int = -1  # ...and how many may wait: one more is still let in


class Netlink(NetlinkSocket):
    """Links, addresses, routes and neighbors of the network namespace the calling thread is in now.

    Every method raises NetlinkError when the kernel refuses: ENODEV no such device, ENOENT no such entry, ENETUNREACH
    no route. Addresses and MACs are text; an address that is none raises ValueError.
    """

    def __init__(self) -> None:
        super().__init__(socket.NETLINK_ROUTE)

    def link(self, name: str = "", *, index: int = 0) -> Device:
        """The device of this name, or of this index."""
        wanted = b"" if index else attribute(IFLA_IFNAME, name.encode() + b"\0")
        mask = attribute(IFLA_EXT_MASK, U32.pack(RTEXT_FILTER_SKIP_STATS))
        return _device(self.get(RTM_GETLINK, LINK.pack(0, 0, index, 0, 0) + mask + wanted))

    def devices(self, kind: str) -> list[Device]:
        """All of one kind, such as "vxlan"; picked by the kernel."""
        mask = attribute(IFLA_EXT_MASK, U32.pack(RTEXT_FILTER_SKIP_STATS))
        wanted = attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, kind.encode() + b"\0"))
        return [
            one for one in self.dump(RTM_GETLINK, LINK.pack(0, 0, 0, 0, 0) + mask + wanted, _device) if one.kind == kind
        ]

    def below(self, device: Device) -> list[Device]:
        """What its packets come in by before it: the members of a bond or bridge, the device that a VLAN is cut of."""
        if device.kind in CUT_OF_ANOTHER and device.link > 0 and device.link_namespace < 0:
            return [self.link(index=device.link)]
        if device.kind not in COMBINING:
            return []
        mask = attribute(IFLA_EXT_MASK, U32.pack(RTEXT_FILTER_SKIP_STATS))
        wanted = attribute(IFLA_MASTER, U32.pack(device.index))
        return self.dump(RTM_GETLINK, LINK.pack(0, 0, 0, 0, 0) + mask + wanted, _device)

    def neighbors(self, family: int, index: int = 0) -> list[Entry]:
        """All entries of one family, of one device where it is given."""
        wanted = attribute(NDA_IFINDEX, U32.pack(index)) if index else b""
        return self.dump(RTM_GETNEIGH, NEIGHBOR.pack(family, 0, 0, 0, 0) + wanted, _entry)

    def selective_rules(self, family: int) -> list[str]:
        """Policy routing rules by mark, type of service, protocol or port, and those that end packets themselves, as
        `ip rule` writes them."""
        return self.dump(RTM_GETRULE, struct.pack("=B11x", family), _selective_rule)

    def rule_for_own_packets(self, destination: str) -> str:
        """The first policy routing rule, as `ip rule` writes it, that decides on what this node itself sends to
        `destination` and on nobody else's packets; "" for none."""
        family, packed = _pack(destination)

        def ours(payload: bytes) -> str | None:
            return _rule(payload) if _is_for_own_packets(payload, packed) else None

        return next(iter(self.dump(RTM_GETRULE, struct.pack("=B11x", family), ours)), "")

    def neighbor_table(self, family: int) -> NeighborTable | None:
        """None when this kernel keeps no such table."""
        return next(iter(self.dump(RTM_GETNEIGHTBL, struct.pack("=Bxxx", family), _table)), None)

    def addresses(self, index: int, family: int = socket.AF_INET) -> list[Address]:
        """All addresses of a device (0: of every one), in the kernel's order."""
        return self.dump(RTM_GETADDR, struct.pack("=BBBBI", family, 0, 0, 0, index), _address)

    def holder(self, address: str) -> Device | None:
        """The device that holds this address of ours; None when none does."""
        family, packed = _pack(address)

        def same(payload: bytes) -> Address | None:
            return _address(payload) if packed in payload else None

        found = self.dump(RTM_GETADDR, struct.pack("=BBBBI", family, 0, 0, 0, 0), same)
        written = _unpack(packed)  # an IPv6 address may have been written in more than one way
        return next((self.link(index=one.device) for one in found if one.address == written), None)

    def route(self, destination: str, *, source: str = "", incoming: int = 0, ports: Ports = ANY_PORTS) -> Route:
        """The entry the kernel picks for its own packets to `destination`, or for those from `source` by `incoming`.

        It is the entry itself, with its prefix, not the route cache's copy of it. Where it names several next
        hops (multipath), the one this very lookup would take is given.
        """
        found = self._route(RTM_F_FIB_MATCH, destination, source, incoming, ports)
        several = found.type == "unicast" and found.device <= 0
        if incoming and not several:
            return replace(found, preferred_source="")
        taken = self._route(0, destination, source, incoming, ports)
        found = replace(found, preferred_source="" if incoming else taken.preferred_source)
        if not several:
            return found
        return replace(found, next_hop=taken.next_hop, device=taken.device, onlink=found.onlink or taken.onlink)

    def refusing_route(self, destination: str, error: int, *, beaten: int = -1) -> Route | None:
        """The blackhole (EINVAL), unreachable (EHOSTUNREACH), prohibit (EACCES) or throw (ENETUNREACH) entry that
        refused a lookup, if any.

        A lookup does not name the entry that refuses it, so the entries of that type are read: few, and picked by the
        kernel. beaten: prefix length up to which the main table has a better entry, and so refuses nothing. What
        another table throws back is for the main one to lead on.
        """
        if error not in REFUSALS:
            return None
        family, packed = _pack(destination)
        kind = REFUSALS[error]
        # One that leads to a next hop of type blackhole (`ip nexthop`) is picked as unicast and told as blackhole.
        picked = 0 if kind == BLACKHOLE and self._has_blackhole_next_hops() else kind
        request = ROUTE.pack(family, 0, 0, 0, 0, 0, 0, picked, 0)
        covering = [
            one
            for one in self.dump(RTM_GETROUTE, request, _of_type(kind))
            if _covers(one, packed)
            and (one.length > beaten if one.table == RT_TABLE_MAIN else error != errno.ENETUNREACH)
        ]
        return max(covering, key=lambda r: (r.table == RT_TABLE_MAIN, r.length, -r.metric), default=None)

    def _has_blackhole_next_hops(self) -> bool:
        try:
            return any(self.dump(RTM_GETNEXTHOP, bytes(NEXT_HOP_OBJECT), _is_blackhole_next_hop))
        except NetlinkError:  # a kernel before 5.3 has no such objects
            return False

    def routes(self, family: int, table: int = RT_TABLE_MAIN) -> list[Route]:
        """A whole table (0: all of them), which grows with the cluster: for a fix or a count, not for a path."""
        wanted = attribute(RTA_TABLE, U32.pack(table)) if table else b""
        return self.dump(RTM_GETROUTE, ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0) + wanted, _routes)

    def default_route(self, family: int = socket.AF_INET) -> Route | None:
        """The default route of the main table. Meant for a pod's, which has two entries."""
        found = [route for route in self.routes(family) if route.length == 0]
        return min(found, key=lambda r: r.metric, default=None)

    def neighbor(self, index: int, address: str) -> Entry:
        """`ip neigh get ADDRESS dev INDEX`."""
        family, packed = _pack(address)
        return _entry(self.get(RTM_GETNEIGH, NEIGHBOR.pack(family, index, 0, 0, 0) + attribute(NDA_DST, packed)))

    def fdb(self, index: int, mac: str) -> Entry:
        """`bridge fdb get MAC dev INDEX self`; its address is the outer one a VXLAN device sends to."""
        packed = bytes.fromhex(mac.replace(":", ""))
        request = NEIGHBOR.pack(AF_BRIDGE, index, 0, NTF_SELF, 0) + attribute(NDA_LLADDR, packed)
        return _entry(self.get(RTM_GETNEIGH, request))

    def namespace_id(self, descriptor: int) -> int:
        """The id this namespace uses for the open network namespace `descriptor`; -1 when it uses none."""
        payload = self.get(RTM_GETNSID, struct.pack("=Bxxx", 0) + attribute(NETNSA_FD, U32.pack(descriptor)))
        return int(S32.unpack(attributes(payload, 4)[NETNSA_NSID])[0])

    def _route(self, flags: int, destination: str, source: str, incoming: int, ports: Ports) -> Route:
        family, packed = _pack(destination)
        bits = len(packed) * 8
        if family == socket.AF_INET:
            flags |= RTM_F_LOOKUP_TABLE  # IPv6 names the table without being asked, and refuses to be asked
        request = ROUTE.pack(family, bits, bits if source else 0, 0, 0, 0, 0, 0, flags) + attribute(RTA_DST, packed)
        if source:
            request += attribute(RTA_SRC, _pack(source)[1])
        if incoming:
            request += attribute(RTA_IIF, U32.pack(incoming))
        if ports.protocol:
            icmp6 = ports.protocol == "icmp" and family == socket.AF_INET6
            number = socket.IPPROTO_ICMPV6 if icmp6 else PROTOCOLS[ports.protocol]
            request += attribute(RTA_IP_PROTO, bytes([number]))
        for kind, port in ((RTA_SPORT, ports.source), (RTA_DPORT, ports.target)):
            if port:
                request += attribute(kind, PORT.pack(port))
        return _routes(self.get(RTM_GETROUTE, request))


class Sockets(NetlinkSocket):
    """The sockets of the network namespace the calling thread is in now."""

    def __init__(self) -> None:
        super().__init__(NETLINK_SOCK_DIAG)

    def listening(self, protocol: str, port: int) -> list[Bound]:
        """The "tcp" or "udp" sockets that wait for anybody on this port, IPv4 first.

        Raises NetlinkError (ENOENT: the kernel cannot load what answers this).
        """
        number, state = LISTENING[protocol]
        wanted = struct.pack("!HH36x8s", port, 0, b"\xff" * 8)  # any other end, any cookie
        found: list[Bound] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            request = struct.pack("=BBxxI", family, number, 1 << state) + wanted
            found += self.dump(SOCK_DIAG_BY_FAMILY, request, _listener)
        return found

    def ports(self, protocol: str, family: int) -> list[int]:
        """Every port on which such a socket waits for packets of this family from elsewhere, in order.

        Those that the kernel hands out to clients are none: a UDP socket that only asks waits like a server.
        """
        number, state = LISTENING[protocol]
        found: set[int] = set()
        for kind in (socket.AF_INET, socket.AF_INET6):
            request = struct.pack("=BBxxI", kind, number, 1 << state) + struct.pack("!HH36x8s", 0, 0, b"\xff" * 8)
            for port, one in self.dump(SOCK_DIAG_BY_FAMILY, request, _port_and_listener):
                if family in one.families and not one.address.startswith("127.") and one.address != "::1":
                    found.add(port)
        return sorted(port for port in found if port < FIRST_OF_CLIENTS)


def _pack(address: str) -> tuple[int, bytes]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return family, socket.inet_pton(family, address)
    except OSError:
        raise ValueError(f"{address!r} is not an IP address") from None


def _unpack(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _u32(attributes: dict[int, bytes], kind: int, default: int) -> int:
    return int(U32.unpack(attributes[kind])[0]) if kind in attributes else default


def _device(payload: bytes) -> Device:
    _, _, index, flags, _ = LINK.unpack_from(payload)
    has = attributes(payload, LINK.size)
    info = attributes(has.get(IFLA_LINKINFO, b""))
    kind = text(info, IFLA_INFO_KIND)
    vxlan = attributes(info.get(IFLA_INFO_DATA, b"")) if kind == "vxlan" else {}
    local = vxlan.get(IFLA_VXLAN_LOCAL) or vxlan.get(IFLA_VXLAN_LOCAL6)
    state = has.get(IFLA_OPERSTATE, b"\0")[0]
    return Device(
        index=index,
        name=text(has, IFLA_IFNAME),
        up=bool(flags & IFF_UP),
        lower_up=bool(flags & IFF_LOWER_UP),
        operstate=OPERSTATES[state] if state < len(OPERSTATES) else str(state),
        mac=has.get(IFLA_ADDRESS, b"").hex(":"),
        mtu=_u32(has, IFLA_MTU, -1),
        kind=kind,
        link=_u32(vxlan, IFLA_VXLAN_LINK, _u32(has, IFLA_LINK, -1)),
        link_namespace=int(S32.unpack(has[IFLA_LINK_NETNSID])[0]) if IFLA_LINK_NETNSID in has else -1,
        # A flow-based device has no VNI of its own; the kernel then says 0.
        vni=-1 if any(vxlan.get(IFLA_VXLAN_COLLECT_METADATA, b"")) else _u32(vxlan, IFLA_VXLAN_ID, -1),
        vxlan_port=int(PORT.unpack(vxlan[IFLA_VXLAN_PORT])[0]) if IFLA_VXLAN_PORT in vxlan else -1,
        vxlan_local=_unpack(local) if local else "",
        ipv6=_carries_ipv6(has),
        program=any(attributes(has.get(IFLA_XDP, b"")).get(IFLA_XDP_ATTACHED, b"")),
    )


def _carries_ipv6(link: dict[int, bytes]) -> bool:
    settings = attributes(attributes(link.get(IFLA_AF_SPEC, b"")).get(socket.AF_INET6, b"")).get(IFLA_INET6_CONF, b"")
    offset = DEVCONF_DISABLE_IPV6 * S32.size
    return len(settings) > offset and S32.unpack_from(settings, offset)[0] == 0


def _address(payload: bytes) -> Address:
    _, length, flags, _, index = struct.unpack_from("=BBBBI", payload)
    has = attributes(payload, 8)
    address = _unpack(has[IFA_LOCAL] if IFA_LOCAL in has else has[IFA_ADDRESS])
    return Address(index, address, length, duplicate=bool(flags & IFA_F_DADFAILED))


def _routes(payload: bytes) -> Route:
    family, length, _, _, table, protocol, scope, kind, flags = ROUTE.unpack_from(payload)
    has = attributes(payload, ROUTE.size)
    # RTA_VIA carries a next hop of the other family behind two bytes of family.
    gateway = has.get(RTA_GATEWAY) or has.get(RTA_VIA, b"\0\0")[2:]
    return Route(
        type=ROUTE_TYPES.get(kind, str(kind)),
        destination=_unpack(has.get(RTA_DST, b"\0" * (4 if family == socket.AF_INET else 16))),
        length=length,
        next_hop=_unpack(gateway) if gateway else "",
        device=_u32(has, RTA_OIF, -1),
        table=_u32(has, RTA_TABLE, table),
        protocol=protocol,
        scope=scope,
        metric=_u32(has, RTA_PRIORITY, 0),
        onlink=bool(flags & RTNH_F_ONLINK),
        preferred_source=_unpack(has[RTA_PREFSRC]) if RTA_PREFSRC in has else "",
        several=tuple(_next_hops(has.get(RTA_MULTIPATH, b""))),
        mtu=_u32(attributes(has.get(RTA_METRICS, b"")), RTAX_MTU, 0),
        next_hop_object=_u32(has, RTA_NH_ID, 0),
    )


def _of_type(kind: int) -> Callable[[bytes], Route | None]:
    def parse(payload: bytes) -> Route | None:
        return _routes(payload) if payload[TYPE_OF_ROUTE] == kind else None

    return parse


def _is_blackhole_next_hop(payload: bytes) -> bool | None:
    return NHA_BLACKHOLE in attributes(payload, NEXT_HOP_OBJECT) or None


def _next_hops(data: bytes) -> Iterator[tuple[str, int]]:
    while data:
        length, _, _, device = NEXT_HOP.unpack_from(data)
        has = attributes(data[:length], NEXT_HOP.size)
        gateway = has.get(RTA_GATEWAY) or has.get(RTA_VIA, b"\0\0")[2:]
        yield _unpack(gateway) if gateway else "", device
        data = data[(length + 3) & ~3 :]


def _listener(payload: bytes) -> Bound:
    if payload[0] == socket.AF_INET:
        found = bound(payload[8:12])
    else:
        found = bound(payload[8:24], only6=any(attributes(payload, INET_DIAG).get(INET_DIAG_SKV6ONLY, b"")))
    if payload[1] != TCP_LISTEN:
        return found
    waiting, backlog = struct.unpack_from("=II", payload, INET_DIAG_QUEUES)
    return replace(found, waiting=waiting, backlog=backlog)


def _port_and_listener(payload: bytes) -> tuple[int, Bound]:
    return int.from_bytes(payload[4:6], "big"), _listener(payload)


def bound(packed: bytes, *, only6: bool = False) -> Bound:
    """A socket bound to this address. An IPv4 address held by an IPv6 socket is given as IPv4."""
    if packed[:12] == bytes(10) + b"\xff\xff":
        packed = packed[12:]
    if len(packed) == 4:
        return Bound(_unpack(packed), (4,))
    return Bound(_unpack(packed), (6,) if any(packed) or only6 else (4, 6))


def _covers(route: Route, packed: bytes) -> bool:
    _, network = _pack(route.destination)
    return _shares(network, packed, route.length)


def _shares(network: bytes, packed: bytes, length: int) -> bool:
    """Is the address in the network of that prefix length?"""
    shift = len(packed) * 8 - length
    return int.from_bytes(packed, "big") >> shift == int.from_bytes(network, "big") >> shift


def _selective_rule(payload: bytes) -> str | None:
    *_, service, _, _, _, action, _ = RULE.unpack_from(payload)
    has = attributes(payload, RULE.size)
    selects = service or any(kind in has for kind in (FRA_FWMARK, FRA_IP_PROTO, FRA_SPORT, FRA_DPORT))
    return _rule(payload) if selects or action in RULE_SAYS else None


def _is_for_own_packets(payload: bytes, packed: bytes) -> bool:
    """By their destination alone: a lookup for what a node sends without a source of its own meets no others."""
    _, length, _, service, *_, flags = RULE.unpack_from(payload)
    has = attributes(payload, RULE.size)
    if flags & FIB_RULE_INVERT or text(has, FRA_IIFNAME) != OWN_PACKETS or service:
        return False
    if any(kind in has for kind in (FRA_SRC, FRA_OIFNAME, FRA_FWMARK, FRA_IP_PROTO, FRA_SPORT, FRA_DPORT)):
        return False
    return FRA_DST not in has or _shares(has[FRA_DST], packed, length)


def _rule(payload: bytes) -> str:
    _, to, by, service, table, _, _, action, flags = RULE.unpack_from(payload)
    has = attributes(payload, RULE.size)
    words = ["not"] if flags & FIB_RULE_INVERT else []
    for kind, name, length in ((FRA_SRC, "from", by), (FRA_DST, "to", to)):
        if kind in has:
            words.append(f"{name} {_unpack(has[kind])}/{length}")
    words += [f"tos {service:#x}"] if service else []
    if FRA_FWMARK in has:
        words.append(f"fwmark {_u32(has, FRA_FWMARK, 0):#x}/{_u32(has, FRA_FWMASK, 0xFFFFFFFF):#x}")
    devices = (FRA_IIFNAME, "iif"), (FRA_OIFNAME, "oif")
    words += [f"{name} {text(has, kind)}" for kind, name in devices if kind in has]
    if FRA_IP_PROTO in has:
        number = has[FRA_IP_PROTO][0]
        words.append(f"ipproto {next((name for name, one in PROTOCOLS.items() if one == number), number)}")
    for kind, name in ((FRA_SPORT, "sport"), (FRA_DPORT, "dport")):
        if kind in has:
            first, last = struct.unpack_from("=HH", has[kind])
            words.append(f"{name} {first}" if first == last else f"{name} {first}-{last}")
    where = RULE_SAYS.get(action) or f"lookup {_u32(has, FRA_TABLE, table)}"
    return f"{_u32(has, FRA_PRIORITY, 0)}: {' '.join([*words, where])}"


def _table(payload: bytes) -> NeighborTable | None:
    """None for what is about one device only."""
    has = attributes(payload, 4)
    if NDTA_CONFIG not in has or NDTA_STATS not in has:
        return None
    (entries,) = struct.unpack_from("=I", has[NDTA_CONFIG], 4)  # ndt_config: two u16, then this
    (refused,) = struct.unpack_from("=Q", has[NDTA_STATS], 10 * 8)  # the eleventh counter of ndt_stats
    return NeighborTable(entries, _u32(has, NDTA_THRESH3, -1), refused)


def _entry(payload: bytes) -> Entry:
    _, _, state, _, _ = NEIGHBOR.unpack_from(payload)
    has = attributes(payload, NEIGHBOR.size)
    return Entry(
        address=_unpack(has[NDA_DST]) if NDA_DST in has else "",
        mac=has.get(NDA_LLADDR, b"").hex(":"),
        state="|".join(name for bit, name in NEIGHBOR_STATES.items() if state & bit),  # an FDB entry is NOARP|PERMANENT
        port=PORT.unpack(has[NDA_PORT])[0] if NDA_PORT in has else -1,
        vni=_u32(has, NDA_VNI, -1),
        via=_u32(has, NDA_IFINDEX, -1),
    )
