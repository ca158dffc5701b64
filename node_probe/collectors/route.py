"""Which entry the kernel itself picks for each way; rules that guess it from a table would guess wrong."""

from __future__ import annotations

from collections.abc import Iterator

from facts import Fact, NodeAsk
from node_probe.view import View


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """Two RouteLookups for each way: the node's own packets, and the flow's coming in (where source and device are
    asked)."""
    for way in view.ways(ask):
        yield from view.lookups(ask.node, way)
