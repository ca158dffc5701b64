"""What the kernel of each node should have: routes to all blocks of other nodes, the tunnels they lead into, and which
of them BGP is to bring; without it a count of routes says nothing.

Pure, and by the very deductions a path is judged with (engine.deductions.leg): whoever is healthy there is so here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, NamedTuple

import msgspec

from bot.sources.ipam import node_of
from engine.deductions.leg import TUNNELS, encapsulation, next_hop, obstacle, route_by, route_owner, tunnel_device
from engine.ends import pod_side
from engine.prefix import host
from facts import Allocation, AskedRoute, CalicoNode, CalicoSettings, Endpoint, Flow, Pool, Side

Object = Mapping[str, Any]
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

BGP_WRITES = ("bird", "both")  # route owners
UNSPECIFIED = {4: "0.0.0.0", 6: "::"}
OF_TUNNELS = "TunnelAddress"  # how the types of such allocations end


class Target(NamedTuple):
    """Addresses that live on a node, and the pool that says how they are reached."""

    prefix: str
    node: str
    pool: Pool | None
    block: str


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Of one node and family."""

    routes: tuple[AskedRoute, ...] = ()  # by Felix each of its own; those without next hop and device any route will do
    to_any: int = 0  # of these, the latter
    by_bgp: int = 0  # of those, the ones BIRD is told to write
    tunnels: Mapping[str, Target] = {}  # device that packets from or to the node's pods pass -> where it leads to
    partner: str = ""  # another node, which sends to addresses of this one's; "" where there is none, or has none
    obstacles: tuple[str, ...] = ()  # why some routes cannot be judged, as Leg.obstacle


class _Way(NamedTuple):
    """From one sort of node to one sort of target."""

    how: str
    by: str
    owner: str
    obstacle: str


class _Led(NamedTuple):
    """One place as nodes of one sort reach it."""

    place: Target
    way: _Way
    device: str  # the tunnel's; "" for none
    route: AskedRoute | None  # None where none is to be asked for


def targets(
    pools: Sequence[Pool], blocks: Iterable[Object], nodes: Mapping[str, CalicoNode], family: int
) -> list[Target]:
    """A block for its node, and for another node each address of it that lives there (borrowed, or of a block without a
    node). Tunnels' own addresses are nobody's pods."""
    networks = sorted(((ip_network(pool.cidr), pool) for pool in pools), key=lambda one: -one[0].prefixlen)
    found = []
    for spec in blocks:
        cidr = ip_network(spec["cidr"])
        if spec.get("deleted") or cidr.version != family:
            continue
        pool = next((one for network, one in networks if network.version == family and _within(cidr, network)), None)
        owner = node_of(spec)
        if owner in nodes:
            found.append(Target(str(cidr), owner, pool, str(cidr)))
        attributes: Sequence[Object] = spec.get("attributes") or ()
        foreign = {
            index: user
            for index, one in enumerate(attributes)
            if (user := str((one.get("secondary") or {}).get("node") or "")) in nodes
            and user != owner
            and not one.get("releasedAt")
            and not str((one.get("secondary") or {}).get("type") or "").endswith(OF_TUNNELS)
        }
        if foreign:
            found += [
                Target(host(str(cidr[ordinal])), foreign[index], pool, str(cidr))
                for ordinal, index in enumerate(spec.get("allocations") or ())
                if index in foreign
            ]
    return found


def ranges(pools: Sequence[Pool], nodes: Mapping[str, CalicoNode], family: int) -> list[Target]:
    """With host-local IPAM each node's podCIDR is what a block is elsewhere."""
    networks = [(ip_network(pool.cidr), pool) for pool in pools]
    return [
        Target(cidr, name, next((pool for network, pool in networks if _within(ip_network(cidr), network)), None), cidr)
        for name, node in nodes.items()
        for cidr in node.pod_cidrs
        if ip_network(cidr).version == family
    ]


def _within(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.network_address in outer and inner.prefixlen >= outer.prefixlen


class Expectations:
    """Of all nodes of one family. `of` is cheap: nodes of one sort share what is found for one of them."""

    def __init__(self, nodes: Mapping[str, CalicoNode], places: Sequence[Target], settings: CalicoSettings) -> None:
        """nodes: those of this family by name. places: as `targets` gives them."""
        self._nodes = nodes
        self._settings = settings
        self._networks = {node.subnet: ip_network(node.subnet) for node in nodes.values() if node.subnet}
        self._addresses = {node.address: ip_address(node.address) for node in nodes.values() if node.address}
        tunnels = Counter(node.tunnel_address for node in nodes.values())
        self._twice = {address for address, count in tunnels.items() if count > 1}  # whose routes nobody can foretell
        self._near: dict[tuple[str, str], bool] = {}
        self._ways: dict[tuple[object, ...], _Way] = {}
        self._places = [(place, side("target", nodes[place.node], place)) for place in places]
        self._owners = {place.node for place in places}
        members: dict[tuple[object, ...], list[CalicoNode]] = {}
        for node in nodes.values():
            members.setdefault(_sort(node), []).append(node)
        self._led = {sort: self._led_by(same[0]) for sort, same in members.items()}
        self._incoming: dict[str, dict[str, Target]] = {}
        for sort, same in members.items():
            for one in self._led[sort]:
                sender = next((node for node in same[:2] if node.name != one.place.node), None)
                if sender and one.device:
                    here = Target("", sender.name, one.place.pool, "")
                    self._incoming.setdefault(one.place.node, {}).setdefault(one.device, here)

    def of(self, name: str) -> Wanted:
        routes: list[AskedRoute] = []
        tunnels: dict[str, Target] = {}
        obstacles: dict[str, None] = {}
        to_any = by_bgp = 0
        for one in self._led[_sort(self._nodes[name])]:
            if one.place.node == name:
                continue
            if one.way.obstacle:
                obstacles[one.way.obstacle] = None
            if one.device:
                tunnels.setdefault(one.device, one.place)
            if one.route is not None and self._nodes[name].address:  # else its Felix does nothing for other nodes
                routes.append(one.route)
                if one.way.by == "bgp":
                    to_any += 1
                    by_bgp += one.way.owner in BGP_WRITES
        return Wanted(
            routes=tuple(routes),
            to_any=to_any,
            by_bgp=by_bgp,
            tunnels={**self._incoming.get(name, {}), **tunnels},
            partner=next((one for one in self._nodes if one != name), "") if name in self._owners else "",
            obstacles=tuple(obstacles),
        )

    def _led_by(self, node: CalicoNode) -> list[_Led]:
        """For every node of this one's sort: each place, its own included, and the route it should have there."""
        mine = side("source", node, None)
        return [self._to(node, mine, place, theirs) for place, theirs in self._places]

    def _to(self, node: CalicoNode, mine: Side, place: Target, theirs: Side) -> _Led:
        peer = self._nodes[place.node]
        modes = (place.pool.vxlan_mode, place.pool.ipip_mode) if place.pool else ()
        near = self._is_near(node.subnet, peer.address)
        sort = (*_character(node), bool(node.subnet), near, bool(peer.address), *_character(peer), modes)
        if sort not in self._ways:
            self._ways[sort] = self._way(mine, theirs)
        way = self._ways[sort]
        device = tunnel_device(way.how, mine) if way.how in TUNNELS else ""
        route = None
        if way.how == "wireguard":
            route = AskedRoute(place.prefix, "", device)
        elif way.by == "felix" and (hop := next_hop(way.how, theirs)) and hop not in self._twice and peer.address:
            itself = way.how == "vxlan" and place.prefix == host(hop)  # a block of one address: the tunnel's own
            route = AskedRoute(place.prefix, "" if itself else hop, device)
        elif way.by == "bgp" and peer.address:
            route = AskedRoute(place.prefix)
        return _Led(place, way, device, route)

    def _is_near(self, subnet: str, address: str) -> bool:
        if not subnet or not address:
            return False
        if (subnet, address) not in self._near:
            self._near[subnet, address] = self._addresses[address] in self._networks[subnet]
        return self._near[subnet, address]

    def _way(self, mine: Side, theirs: Side) -> _Way:
        """As from a pod of the one to a pod of the other, which is another node even where both have one name: what is
        told of its own places holds for others of its sort."""
        theirs = msgspec.structs.replace(theirs, node=f"another than {mine.node}")
        how = encapsulation(mine, theirs)
        return _Way(
            how,
            route_by(how, mine, theirs, self._settings),
            route_owner(how, mine, theirs, self._settings),
            obstacle(mine, theirs) if how == "unknown" else "",
        )


def side(role: str, node: CalicoNode, place: Target | None) -> Side:
    """A pod of that node with an address of the place, as one end of a leg."""
    address = (place.prefix if place else "").split("/")[0] or UNSPECIFIED[node.family]
    pool = place.pool if place else None
    flow = Flow(
        name="", source="source", target="target", family=node.family, source_address=address, target_address=address
    )
    held = Allocation(
        address=address,
        found=True,
        block=place.block if place else "",
        vxlan_mode=pool.vxlan_mode if pool else "",
        ipip_mode=pool.ipip_mode if pool else "",
    )
    (found,) = pod_side(flow, role, Endpoint(name=role, kind="pod", node=node.name), node, held)
    return found


def _sort(node: CalicoNode) -> tuple[object, ...]:
    return (node.subnet, *_character(node))


def _character(node: CalicoNode) -> tuple[object, ...]:
    """All of a node that decides how it is sent to and how it sends, but for its addresses."""
    return (
        node.family, node.system, node.settings_read, node.foreign_dataplane, node.bpf, bool(node.wireguard_key),
        node.wireguard, node.wireguard_device,
    )  # fmt: skip
