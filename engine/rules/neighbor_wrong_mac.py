"""Frames for the peer's tunnel address carry a MAC that is not the peer's: the peer's kernel drops them."""

from engine.rule import HEALS_ENTRY, Text, cause, say, some, the
from facts import Leg, Neighbor


@cause(
    title="Wrong MAC for the peer's tunnel address",
    severity="breaks",
    remedy="Replace the neighbor with the right MAC; never only delete it, nothing relearns it on this device.",
    fix="replace_neighbor",
    after=["vxlan_device_missing", "vxlan_device_down"],
    after_peer=["tunnel_address_not_owned"],
    at=the.leg.source_node,
    stage="source tunnel",
    heals_within_s=HEALS_ENTRY,
    leg=some(Leg, encapsulation="vxlan"),
    seen=some(
        Neighbor,
        node=the.leg.source_node,
        device=the.leg.tunnel_device,
        address=the.leg.target_tunnel_address,
        found=True,
    ),
)
def neighbor_wrong_mac(leg: Leg, seen: Neighbor) -> Text | None:
    if not seen.mac or seen.mac == leg.target_tunnel_mac:
        return None
    return say(
        "{node} sends frames for {address} to {mac}; {device} of {peer} is {peer_mac}.",
        node=seen.node,
        address=seen.address,
        mac=seen.mac,
        device=leg.tunnel_device,
        peer=leg.target_node,
        peer_mac=leg.target_tunnel_mac,
    )
