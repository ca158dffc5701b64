"""Which MAC a next hop has in the kernel's eyes: of the hop it would take, and of the one it should take."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import msgspec

from facts import Fact, Neighbor, NodeAsk, PeerGateway, Way
from node_probe.netlink_messages import NetlinkError
from node_probe.view import View

UNRESOLVED = ("FAILED", "INCOMPLETE")
DISCARD_PORT = 9
PATIENCE_S = 0.2  # for an answer to ARP, which takes a millisecond where there is one
PAUSE_S = 0.005


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """Neighbor of each way's real next hops, of each expected one on the tunnel device, of each local pod on its
    interface, and of each peer's node address on the uplink; PeerGateway where the way there is another."""
    peers = dict.fromkeys(way.expected_peer for way in ask.ways if way.expected_peer)
    pods = {(pod.interface, pod.address) for pod in ask.local_pods}
    own = {ask.tunnel_device, *(pod.interface for pod in ask.local_pods)}
    for device, address in view.hops(ask):
        seen = view.neighbor(ask.node, device, address)
        # A hop that is neither the peer's nor Calico's, or a pod of this node: does anybody answer for it?
        waited_for = (device not in own and address not in peers) or (device, address) in pods
        yield _asked(seen, view) if waited_for and (not seen.found or seen.state in UNRESOLVED) else seen
    uplink = view.uplink(ask) if peers else None
    if uplink is not None:
        for address in peers:
            yield _peer(ask.node, uplink.name, address, view)
            yield from _gateway(ask.node, address, uplink.name, view)


def _peer(node: str, device: str, address: str, view: View) -> Neighbor:
    """FAILED may be a memory of an hour ago: it counts when the kernel has a packet to send and still finds nobody."""
    seen = view.neighbor(node, device, address)
    way = view.lookups(node, Way(destination=address))[0]
    never = not seen.found and (way.device, way.next_hop) == (device, "")  # behind a router it would have no entry
    return _asked(seen, view) if never or seen.state in UNRESOLVED else seen


def _gateway(node: str, peer: str, uplink: str, view: View) -> Iterator[PeerGateway]:
    """The next hop to a peer that is not met at the uplink itself, once the kernel has had a packet for it."""
    way = view.lookups(node, Way(destination=peer))[0]
    if way.type != "unicast" or not way.device or (way.device == uplink and not way.next_hop):
        return
    seen = view.neighbor(node, way.device, way.next_hop or peer)
    if not seen.found or seen.state in UNRESOLVED:
        seen = _asked(seen, view)
    yield PeerGateway(node=node, peer=peer, device=way.device, address=seen.address, mac=seen.mac, state=seen.state)


def _asked(seen: Neighbor, view: View) -> Neighbor:
    """What the kernel knows of it once it has had a packet for it."""
    to: tuple[str | int, ...] = (seen.address, DISCARD_PORT)
    if seen.address.startswith("fe80:"):
        to = (*to, 0, view.netlink.link(seen.device).index)
    with (
        contextlib.suppress(OSError),  # a kernel that refuses to send has resolved nothing either
        socket.socket(socket.AF_INET6 if ":" in seen.address else socket.AF_INET, socket.SOCK_DGRAM) as nudge,
    ):
        nudge.sendto(b"", to)
    until = min(time.monotonic() + PATIENCE_S, view.deadline)
    while (not seen.found or seen.state in UNRESOLVED) and time.monotonic() < until:
        time.sleep(PAUSE_S)
        seen = view.neighbor(seen.node, seen.device, seen.address)
    return msgspec.structs.replace(seen, asked=bool(seen.mac) or _solicits(seen, view))


def _solicits(seen: Neighbor, view: View) -> bool:
    """Does the kernel ask on that device at all? Over IPv6 it does so from the device's own link-local address only."""
    if ":" not in seen.address:
        return True
    try:
        own = view.netlink.addresses(view.netlink.link(seen.device).index, socket.AF_INET6)
    except NetlinkError as error:
        if error.name != "ENODEV":
            raise
        return False
    return any(one.address.startswith("fe80:") for one in own)
