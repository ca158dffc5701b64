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
from facts.flow import TUNNEL_DEVICES

Object = Mapping[str, Any]
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

BGP_WRITES = ("bird", "both")  # route owners
UNSPECIFIED = {4: "0.0.0.0", 6: "::"}
VXLAN = (TUNNEL_DEVICES["vxlan", 4], TUNNEL_DEVICES["vxlan", 6])
OBSTACLE = "obstacle "
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
    by_bgp: int = 0  # of the latter, the ones BIRD is told to write
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
    device: str  # the tunnel's; "" for none
    route: AskedRoute | None  # None where none is to be asked for
    words: tuple[str, ...]  # "bgp": any route will do, and BIRD is to write it; OBSTACLE...: not judged


class _Sort(NamedTuple):
    """All places as nodes of one sort reach them."""

    led: list[_Led]
    routes: list[AskedRoute]
    begins: list[int]  # of each place, and of the end: how many routes there are before it
    counted: Counter[str]  # words
    tunnels: dict[str, list[Target]]  # two places of different nodes behind each device


def _summed(led: list[_Led]) -> _Sort:
    routes: list[AskedRoute] = []
    begins, tunnels = [], dict[str, list[Target]]()
    for one in led:
        begins.append(len(routes))
        routes += [one.route] if one.route else []
        if one.device:
            known = tunnels.setdefault(one.device, [])
            if not known or (len(known) == 1 and known[0].node != one.place.node):
                known.append(one.place)
    return _Sort(led, routes, [*begins, len(routes)], Counter(word for one in led for word in one.words), tunnels)


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
    """Of all nodes of one family. Nodes of one sort share what is found for the first of them that is asked for."""

    def __init__(self, nodes: Mapping[str, CalicoNode], places: Sequence[Target], settings: CalicoSettings) -> None:
        """nodes: those of this family by name. places: as `targets` gives them."""
        self._nodes = nodes
        self._settings = settings
        self._networks = {node.subnet: ip_network(node.subnet) for node in nodes.values() if node.subnet}
        self._addresses = {node.address: ip_address(node.address) for node in nodes.values() if node.address}
        tunnels = Counter(node.tunnel_address for node in nodes.values())
        self._twice = {address for address, count in tunnels.items() if count > 1}  # whose routes nobody can foretell
        self._ways: dict[tuple[object, ...], _Way] = {}
        self._led: dict[tuple[object, ...], _Led] = {}
        self._sorts: dict[tuple[object, ...], _Sort] = {}
        self._senders: dict[tuple[object, ...], Side] = {}
        self._places = places
        self._theirs = [side("target", nodes[place.node], place) for place in places]
        self._characters = [_of_place(nodes[place.node], place) for place in places]
        self._modes = {place.prefix: place.pool.vxlan_mode for place in places if place.pool}
        self._own: dict[str, list[int]] = {}
        for number, place in enumerate(places):
            self._own.setdefault(place.node, []).append(number)
        self._members: dict[tuple[object, ...], list[CalicoNode]] = {}
        for node in nodes.values():
            self._members.setdefault(_sort(node), []).append(node)

    def of(self, name: str) -> Wanted:
        node, own = self._nodes[name], self._own.get(name, [])
        sort = self._of_sort(node)
        of_own = [sort.led[number] for number in own]
        routes: list[AskedRoute] = []
        start = 0
        for number in own if node.address else ():  # without an address its Felix does nothing for other nodes
            routes += sort.routes[sort.begins[start] : sort.begins[number]]
            start = number + 1
        routes += sort.routes[sort.begins[start] :] if node.address else ()
        if not node.tunnel_address:
            routes = [one for one in routes if not self._by_vxlan(one)]
        counted = sort.counted - Counter(word for one in of_own for word in one.words)
        tunnels = {
            device: place
            for device, places in sort.tunnels.items()
            if (place := next((one for one in places if one.node != name), None))
        }
        if not own and not node.tunnel_address:  # no pool selects it, and no pod of it waits for a tunnel
            tunnels.pop(TUNNEL_DEVICES["vxlan", node.family], None)
        return Wanted(
            routes=tuple(routes),
            by_bgp=counted["bgp"] if node.address else 0,
            tunnels={**self._incoming(name), **tunnels},
            partner=next((one for one in self._nodes if one != name), "") if own else "",
            # The address of another node is missing there, and told of that one.
            obstacles=tuple(
                one.removeprefix(OBSTACLE)
                for one in sorted(counted)
                if one.startswith(OBSTACLE) and not (one == f"{OBSTACLE}subnet" and node.address)
            ),
        )

    def _by_vxlan(self, route: AskedRoute) -> bool:
        """Is it one that Felix writes only where the node itself has a tunnel's address?"""
        if route.prefix not in self._modes:
            return False
        return self._modes[route.prefix] != "Never" and bool(route.next_hop or route.device in VXLAN)

    def _incoming(self, name: str) -> dict[str, Target]:
        """Device by which nodes send to this one's pods -> one that does."""
        found: dict[str, Target] = {}
        for same in self._members.values() if name in self._own else ():
            sender = next((node for node in same[:2] if node.name != name), None)
            for number in self._own[name] if sender else ():
                device = self._to(sender, self._mine(sender), number).device if sender else ""
                if device and sender:
                    found.setdefault(device, Target("", sender.name, self._places[number].pool, ""))
        return found

    def _of_sort(self, node: CalicoNode) -> _Sort:
        sort = _sort(node)
        if sort not in self._sorts:
            mine = self._mine(node)
            self._sorts[sort] = _summed([self._to(node, mine, number) for number in range(len(self._places))])
        return self._sorts[sort]

    def _mine(self, node: CalicoNode) -> Side:
        """The sender's end of a leg, of this node or another of its sort."""
        sort = _sort(node)
        if sort not in self._senders:
            self._senders[sort] = side("source", node, None)
        return self._senders[sort]

    def _to(self, node: CalicoNode, mine: Side, number: int) -> _Led:
        """How nodes of this one's sort reach a place. Its own ones, too, as if they were another node's."""
        place, theirs = self._places[number], self._theirs[number]
        near = self._is_near(node.subnet, theirs.node_address)
        sort = (_character(node), bool(node.subnet), near, self._characters[number])
        if (number, sort) not in self._led:
            if sort not in self._ways:
                self._ways[sort] = self._way(mine, theirs)
            self._led[number, sort] = self._led_by(self._ways[sort], mine, place, theirs)
        return self._led[number, sort]

    def _led_by(self, way: _Way, mine: Side, place: Target, theirs: Side) -> _Led:
        device = tunnel_device(way.how, mine) if way.how in TUNNELS else ""
        hop = next_hop(way.how, theirs)
        route = None
        if way.how == "wireguard":
            route = AskedRoute(place.prefix, "", device)
        elif way.by == "felix" and hop and hop not in self._twice and theirs.node_address:
            itself = way.how == "vxlan" and place.prefix == host(hop)  # a block of one address: the tunnel's own
            route = AskedRoute(place.prefix, "" if itself else hop, device)
        elif way.by == "bgp" and theirs.node_address:
            route = AskedRoute(place.prefix)
        words = [f"{OBSTACLE}{way.obstacle}"] if way.obstacle else []
        if route and way.by == "bgp" and way.owner in BGP_WRITES:
            words.append("bgp")
        return _Led(place, device, route, tuple(words))

    def _is_near(self, subnet: str, address: str) -> bool:
        return bool(subnet and address) and self._addresses[address] in self._networks[subnet]

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


def _of_place(node: CalicoNode, place: Target) -> tuple[object, ...]:
    modes = (place.pool.vxlan_mode, place.pool.ipip_mode) if place.pool else ()
    return (*_character(node), bool(node.address), modes)


def _character(node: CalicoNode) -> tuple[object, ...]:
    """All of a node that decides how it is sent to and how it sends, but for its addresses."""
    return (
        node.family, node.system, node.settings_read, node.foreign_dataplane, node.bpf, bool(node.wireguard_key),
        node.wireguard, node.wireguard_device,
    )  # fmt: skip
