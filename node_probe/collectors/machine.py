"""What else the node's machine has that can be in Calico's way: other addresses, other tunnels, full tables."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from itertools import islice

from facts import Fact, ForeignVxlan, ForeignVxlans, MacSharers, NeighborTable, NodeAddress, NodeAsk, RoutingRules
from node_probe.netlink import Device
from node_probe.view import FAMILIES, OWN, View

SHOWN = 8  # addresses, rules


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """NodeAddress, ForeignVxlans, MacSharers of each expected MAC on the tunnel device, RoutingRules, NeighborTable."""
    if ask.uplink_address:
        yield _address(ask, view)
    yield _foreign(ask, view)
    yield from _sharers(ask, view)
    yield RoutingRules(
        node=ask.node,
        family=ask.family,
        rules=tuple(view.netlink.selective_rules(FAMILIES[ask.family])[:SHOWN]),
    )
    table = view.netlink.neighbor_table(FAMILIES[ask.family])
    if table is None:
        yield NeighborTable(node=ask.node, family=ask.family, collectable=-1, limit=-1, refused=-1)
        return
    permanent = sum("PERMANENT" in one.state for one in view.netlink.neighbors(FAMILIES[ask.family]))
    yield NeighborTable(
        node=ask.node,
        family=ask.family,
        collectable=max(0, table.entries - permanent),
        limit=table.limit,
        refused=table.refused,
    )


def _address(ask: NodeAsk, view: View) -> NodeAddress:
    home = view.home(ask)
    return NodeAddress(
        node=ask.node,
        address=ask.uplink_address,
        found=view.uplink(ask) is not None,
        device=home.name if home else "",
        duplicate=home is not None and _is_duplicate(ask, view, home),
        others=tuple(f"{device.name} {address}" for device, address in islice(view.others(ask), SHOWN)),
    )


def _is_duplicate(ask: NodeAsk, view: View, home: Device) -> bool:
    return ask.family == 6 and any(
        one.duplicate and ip_address(one.address) == ip_address(ask.uplink_address)
        for one in view.netlink.addresses(home.index, FAMILIES[6])
    )


def _foreign(ask: NodeAsk, view: View) -> ForeignVxlans:
    found = [
        ForeignVxlan(device=one.name, vni=one.vni, port=one.vxlan_port, up=one.up)
        for one in view.netlink.devices("vxlan")
        if one.name not in OWN
    ]
    return ForeignVxlans(node=ask.node, devices=tuple(sorted(found, key=lambda one: one.device)))


def _sharers(ask: NodeAsk, view: View) -> Iterator[MacSharers]:
    macs = dict.fromkeys(way.expected_mac for way in ask.ways if way.expected_mac)
    if not macs:
        return
    device = view.device(ask.tunnel_device)
    entries = view.netlink.neighbors(FAMILIES[ask.family], device.index) if device else []
    for mac in macs:
        addresses = tuple(sorted(one.address for one in entries if one.mac == mac))
        yield MacSharers(node=ask.node, device=ask.tunnel_device, mac=mac, addresses=addresses)
