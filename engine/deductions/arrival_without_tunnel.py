"""The same where packets come in by the uplink as they are."""

from __future__ import annotations

from engine.between import CARD
from engine.rule import derive, some
from facts import Arrival, Leg, Link


@derive(
    leg=some(Leg, crosses=True, encapsulation="direct"),
    uplink=CARD,
)
def arrival_without_tunnel(leg: Leg, uplink: Link) -> list[Arrival]:
    return [Arrival(flow=leg.flow, direction=leg.direction, node=leg.target_node, device=uplink.device)]
