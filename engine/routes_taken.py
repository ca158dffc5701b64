"""Which way packets took that may be right and lost them: where any route may lead there, none can be accused, and yet
a person has to know it."""

from __future__ import annotations

from collections.abc import Sequence

from engine.between import UNRESOLVED
from engine.prefix import covers_more
from facts import Fact, Leg, Neighbor, RouteLookup, Text, in_turn, say


def told(leg: Leg, facts: Sequence[Fact]) -> str:
    """Of both directions of a flow whose packets are lost; "" where each way is as it should be or is judged by
    rules."""
    both = [one for one in facts if isinstance(one, Leg) and one.flow == leg.flow and one.route_by == "bgp"]
    return in_turn(text for one in dict.fromkeys(both) for text in _ways(one, facts))


def _ways(leg: Leg, facts: Sequence[Fact]) -> list[Text]:
    way = (leg.source_node, leg.target_address, "", "")
    route = next(
        (
            one
            for one in facts
            if isinstance(one, RouteLookup) and (one.node, one.destination, one.source, one.incoming) == way
        ),
        None,
    )
    if route is None or not route.found:
        return []
    found, block = [], leg.target_block or leg.target_address
    if covers_more(route.prefix, leg.target_block):
        found.append(
            say(
                "{node} has no route of its own for {block}: packets to {address} take {prefix} via {next_hop} dev "
                "{device}."
                if route.next_hop
                else "{node} has no route of its own for {block}: packets to {address} take {prefix} dev {device}.",
                node=route.node,
                block=block,
                address=leg.target_address,
                prefix=route.prefix,
                next_hop=route.next_hop,
                device=route.device,
            )
        )
    hop = (route.node, route.device, route.next_hop or route.destination)
    for one in facts:
        if isinstance(one, Neighbor) and (one.node, one.device, one.address) == hop and one.state in UNRESOLVED:
            found.append(
                say(
                    "Nobody answers for {hop}, to which {node} sends packets to {address} ({state}).",
                    hop=one.address,
                    node=one.node,
                    address=leg.target_address,
                    state=one.state,
                )
            )
            break
    return found
