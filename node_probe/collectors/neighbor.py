"""Which MAC a next hop has in the kernel's eyes: of the hop it would take, and of the one it should take."""

from __future__ import annotations

from collections.abc import Iterator

from facts import Fact, NodeAsk
from node_probe.view import View


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """Neighbor of each way's real next hops, and of each expected next hop on the tunnel device."""
    for device, address in view.hops(ask):
        yield view.neighbor(ask.node, device, address)
