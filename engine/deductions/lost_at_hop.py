"""The same where packets do not even leave: nobody answers for the next hop of their route."""

from __future__ import annotations

from engine.between import ARRIVED, LEFT, UNRESOLVED
from engine.rule import derive, some, the
from engine.sender import ROUTE
from facts import Leg, Lost, Neighbor, RouteLookup, Sighting


@derive(
    leg=some(Leg, crosses=True, encapsulation="direct", route_by="bgp"),
    route=ROUTE,
    hop=some(Neighbor, node=the.leg.source_node, device=the.route.device, found=True),
    left=LEFT,
    arrived=ARRIVED,
)
def lost_at_hop(leg: Leg, route: RouteLookup, hop: Neighbor, left: Sighting, arrived: Sighting) -> list[Lost]:
    if hop.address != (route.next_hop or route.destination) or hop.state not in UNRESOLVED:
        return []
    if left.seen or arrived.seen or not arrived.enclosed:
        return []
    return [Lost(flow=leg.flow, direction=leg.direction, hop=hop.address, state=hop.state)]
