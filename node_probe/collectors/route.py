"""Which entry the kernel itself picks for each way; rules that guess it from a table would guess wrong."""

from __future__ import annotations

from collections.abc import Iterator

from facts import Blind, Fact, NodeAsk
from node_probe.view import View


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """Two RouteLookups for each way: the node's own packets, and the flow's coming in (where source and device are
    asked)."""
    for way in view.ways(ask):
        found = view.lookups(ask.node, way)
        yield from found
        if not any(one.source == "" for one in found):
            reason = (
                f"what comes in for {way.destination} is refused, and what its routes say of it could not be asked: "
                f"what the node itself sends there, and its reverse path filter, a rule of its own decides on "
                f"({view.rule_for_own_packets(way)})"
            )
            yield Blind(node=ask.node, look="route", reason=reason)
