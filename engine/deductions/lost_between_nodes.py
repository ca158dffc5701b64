"""The same where any route may be right: both nodes looked for the packets."""

from __future__ import annotations

from engine.between import ARRIVED, CARD, LEFT, swallowed
from engine.rule import derive, some
from facts import Leg, Link, Lost, Sighting


@derive(
    leg=some(Leg, crosses=True, encapsulation="direct", route_by="bgp"),
    left=LEFT,
    arrived=ARRIVED,
    card=CARD,
)
def lost_between_nodes(leg: Leg, left: Sighting, arrived: Sighting, card: Link) -> list[Lost]:
    sent = left.seen if swallowed(leg, left, arrived, card) else 0
    return [Lost(flow=leg.flow, direction=leg.direction, sent=sent)]
