"""The same where packets leave by the uplink as they are."""

from __future__ import annotations

from engine.rule import derive, some, the
from facts import Leg, Link, Room


@derive(
    leg=some(Leg, crosses=True, encapsulation="direct"),
    uplink=some(Link, node=the.leg.source_node, node_address=the.leg.source_node_address, found=True),
)
def room_without_tunnel(leg: Leg, uplink: Link) -> list[Room]:
    return [
        Room(
            flow=leg.flow,
            direction=leg.direction,
            node=leg.source_node,
            device=uplink.device,
            size=uplink.mtu,
            uplink=uplink.device,
            uplink_mtu=uplink.mtu,
        )
    ]
