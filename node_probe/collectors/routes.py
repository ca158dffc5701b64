"""Are the routes there that a node should have, all of them? A path that is asked about meets one only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import ip_network

from facts import AskedRoute, Fact, NodeAsk, RouteGroup, RouteTable
from facts.flow import TUNNEL_DEVICES
from node_probe.netlink import RT_TABLE_MAIN, Route
from node_probe.view import FAMILIES, View

RT_TABLE_LOCAL = 255
SHOWN = 20  # missing routes, and those that lead elsewhere
OF_ADDRESSES = ("local", "broadcast", "anycast", "multicast")
SWALLOWS = ("blackhole", "unreachable", "prohibit", "throw")


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """RouteTable, where the node as a whole is asked about."""
    if not ask.status:
        return
    all_tables = view.netlink.routes(FAMILIES[ask.family], 0)
    routes = [one for one in all_tables if one.table != RT_TABLE_LOCAL and one.type not in OF_ADDRESSES]
    uplink = view.uplink(ask)
    names = {uplink.index: uplink.name} if uplink else {}
    for name in {*TUNNEL_DEVICES.values(), ask.tunnel_device} - {""}:
        if device := view.device(name):
            names[device.index] = name
    counted = Counter((names.get(one.device, ""), one.protocol, one.type) for one in routes)
    met, covered, unled, local, missing, astray = _compared(ask.routes, routes, names)
    yield RouteTable(
        node=ask.node,
        family=ask.family,
        groups=tuple(
            RouteGroup(device=device, protocol=protocol, type=kind, count=count)
            for (device, protocol, kind), count in sorted(counted.items())
        ),
        asked=len(ask.routes),
        met=met,
        covered=covered,
        unled=unled,
        local=local,
        missing=tuple(missing[:SHOWN]),
        lacking=len(missing),
        astray=tuple(astray[:SHOWN]),
        strayed=len(astray),
    )


def _compared(
    asked: Sequence[AskedRoute], routes: Sequence[Route], names: dict[int, str]
) -> tuple[int, int, int, int, list[str], list[str]]:
    """(met, covered, unled, local, missing, astray) of the asked ones, in any table: WireGuard has one of its own."""
    held: dict[tuple[int, int], list[Route]] = {}
    for route in routes:
        held.setdefault(_key(route.prefix), []).append(route)
    lengths = sorted({length for _, length in held if length}, reverse=True)
    met = covered = unled = local = 0
    missing, astray = [], []
    for one in asked:
        found = held.get(_key(one.prefix), ())
        if any(_leads(route, one, names) for route in found):
            met += 1
        elif any(_of_a_pod(route, names) for route in found):
            local += 1
        elif found:
            astray += [_shown(min(found, key=lambda route: (route.table != RT_TABLE_MAIN, route.metric)), names)]
        elif one.next_hop or one.device:
            missing.append(one.prefix)
        elif _is_covered(one.prefix, held, lengths):
            covered += 1
        else:
            unled += 1
    return met, covered, unled, local, missing, astray


def _key(prefix: str) -> tuple[int, int]:
    network = ip_network(prefix)
    return int(network.network_address), network.prefixlen


def _is_covered(prefix: str, held: dict[tuple[int, int], list[Route]], lengths: Sequence[int]) -> bool:
    """By the longest wider route, when that leads anywhere."""
    network = ip_network(prefix)
    for length in lengths:
        if length < network.prefixlen:
            wider = held.get(_key(str(network.supernet(new_prefix=length))), ())
            if wider:
                return any(one.type not in SWALLOWS for one in wider)
    return False


def _leads(route: Route, asked: AskedRoute, names: dict[int, str]) -> bool:
    if route.type != "unicast":
        return False
    if not asked.next_hop and not asked.device:
        return True
    tunnels = TUNNEL_DEVICES.values()
    ways = route.several or ((route.next_hop, route.device),)
    return any(
        (names.get(device, "") == asked.device if asked.device else names.get(device, "") not in tunnels)
        and asked.next_hop in ("", hop)
        for hop, device in ways
    )


def _of_a_pod(route: Route, names: dict[int, str]) -> bool:
    """Is it one that leads into a pod of this node?"""
    length = ip_network(route.prefix).max_prefixlen
    by_own_device = route.device > 0 and route.device not in names and not route.next_hop
    return route.type == "unicast" and route.length == length and by_own_device


def _shown(route: Route, names: dict[int, str]) -> str:
    words = [] if route.type == "unicast" else [route.type]
    words.append(route.prefix)
    words += ["via", route.next_hop] if route.next_hop else []
    words += ["dev", names[route.device]] if route.device in names else []
    return " ".join(words)
