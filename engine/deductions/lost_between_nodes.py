"""The same where any route may be right: both nodes looked for the packets."""

from __future__ import annotations

from engine.between import swallowed
from engine.rule import derive, some, the
from facts import Leg, Link, Lost, Sighting


@derive(
    leg=some(Leg, crosses=True, encapsulation="direct", route_by="bgp"),
    left=some(
        Sighting,
        node=the.leg.source_node,
        way="out",
        source_address=the.leg.source_address,
        target_address=the.leg.target_address,
    ),
    arrived=some(
        Sighting,
        node=the.leg.target_node,
        way="in",
        source_address=the.leg.source_address,
        target_address=the.leg.target_address,
    ),
    card=some(Link, node=the.leg.target_node, node_address=the.leg.target_node_address, found=True),
)
def lost_between_nodes(leg: Leg, left: Sighting, arrived: Sighting, card: Link) -> list[Lost]:
    sent = left.seen if swallowed(leg, left, arrived, card) else 0
    return [Lost(flow=leg.flow, direction=leg.direction, sent=sent)]
