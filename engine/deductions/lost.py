"""Whether packets get lost behind their node; without it a route that may be right would be accused by its looks."""

from __future__ import annotations

from engine.rule import derive, some
from facts import Leg, Lost


@derive(leg=some(Leg, routed=True))
def lost(leg: Leg) -> list[Lost]:
    """Only without a tunnel, and where Felix does not write the routes, may any route be right."""
    if leg.encapsulation == "direct" and leg.route_by == "bgp" and leg.crosses:
        return []
    return [Lost(flow=leg.flow, direction=leg.direction)]
