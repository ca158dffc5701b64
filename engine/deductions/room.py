"""How large a packet a leg's tunnel takes; without it each encapsulation would need MTU rules of its own."""

from __future__ import annotations

from engine.rule import derive, some, the
from facts import Leg, Link, Room

# Outer IP header, and for VXLAN and WireGuard what is in it before the packet of the pod.
OVERHEADS = {
    ("vxlan", 4): 50,
    ("vxlan", 6): 70,
    ("ipip", 4): 20,
    ("wireguard", 4): 60,
    ("wireguard", 6): 80,
}


@derive(
    leg=some(Leg, crosses=True),
    tunnel=some(Link, node=the.leg.source_node, device=the.leg.expected_device, found=True),
    uplink=some(Link, node=the.leg.source_node, node_address=the.leg.source_node_address, found=True),
)
def room(leg: Leg, tunnel: Link, uplink: Link) -> list[Room]:
    return [
        Room(
            flow=leg.flow,
            direction=leg.direction,
            node=leg.source_node,
            device=tunnel.device,
            size=tunnel.mtu,
            uplink=uplink.device,
            uplink_mtu=uplink.mtu,
            overhead=OVERHEADS[leg.encapsulation, leg.family],
        )
    ]
