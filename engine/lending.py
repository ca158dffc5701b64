"""What a node lends of its block lies inside its own blackhole; without this it would be taken for a wound."""

from __future__ import annotations

from facts import Allocation, Leg, RouteLookup


def swallowed_by_lender(leg: Leg, held: Allocation, route: RouteLookup) -> bool:
    """Does the source's node swallow packets to an address of its own block that the target's node borrowed?

    It needs a route of its own there; that the block as a whole is a blackhole is right.
    """
    lent = held.block_node == leg.source_node and held.node == leg.target_node != leg.source_node
    return lent and route.type == "blackhole" and route.prefix == held.block
