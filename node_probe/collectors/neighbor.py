"""Which MAC a next hop has in the kernel's eyes: of the hop it would take, and of the one it should take."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

from facts import Fact, Neighbor, NodeAsk
from node_probe.view import View

UNRESOLVED = ("FAILED", "INCOMPLETE")
DISCARD_PORT = 9
PATIENCE_S = 0.2  # for an answer to ARP, which takes a millisecond where there is one
PAUSE_S = 0.005


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """Neighbor of each way's real next hops, of each expected one on the tunnel device, of each local pod on its
    interface, and of each peer's node address on the uplink."""
    for device, address in view.hops(ask):
        yield view.neighbor(ask.node, device, address)
    peers = dict.fromkeys(way.expected_peer for way in ask.ways if way.expected_peer)
    uplink = view.uplink(ask) if peers else None
    if uplink is not None:
        for address in peers:
            yield _peer(ask.node, uplink.name, address, view)


def _peer(node: str, device: str, address: str, view: View) -> Neighbor:
    """FAILED may be a memory of an hour ago: it counts when the kernel has a packet to send and still finds nobody."""
    seen = view.neighbor(node, device, address)
    if seen.state not in UNRESOLVED:
        return seen
    with (
        contextlib.suppress(OSError),  # a kernel that refuses to send has resolved nothing either
        socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as nudge,
    ):
        nudge.sendto(b"", (address, DISCARD_PORT))
    until = min(time.monotonic() + PATIENCE_S, view.deadline)
    while seen.state in UNRESOLVED and time.monotonic() < until:
        time.sleep(PAUSE_S)
        seen = view.neighbor(node, device, address)
    return seen
