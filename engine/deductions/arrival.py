"""By which device a leg's packets come in; without it each encapsulation would need arrival rules of its own."""

from __future__ import annotations

from engine.rule import derive, some
from facts import Arrival, Leg


@derive(leg=some(Leg, crosses=True))
def arrival(leg: Leg) -> list[Arrival]:
    """Out of the tunnel, where there is one."""
    if not leg.expected_device:
        return []
    return [Arrival(flow=leg.flow, direction=leg.direction, node=leg.target_node, device=leg.expected_device)]
