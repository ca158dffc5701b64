"""The same where both pods are on one node: what one sends comes in by its own interface."""

from __future__ import annotations

from engine.rule import derive, some
from facts import Arrival, Leg


@derive(leg=some(Leg, encapsulation="local", steered=True))
def arrival_within_node(leg: Leg) -> list[Arrival]:
    return [Arrival(flow=leg.flow, direction=leg.direction, node=leg.target_node, device=leg.source_interface)]
