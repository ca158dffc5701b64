"""Frames for a peer find their way by its MAC alone; where two nodes have the same one, one of them gets all."""

from engine.rule import HEALS_NEVER, Text, cause, say, some, the
from facts import FdbEntry, Leg, MacSharers


@cause(
    title="Two nodes' VXLAN devices have the same MAC",
    severity="breaks",
    remedy="Give each node its own: remove annotation projectcalico.org/VXLANTunnelMACAddr where it was copied from "
    "another node, and restart the calico-node pod there.",
    at=the.leg.source_node,
    stage="source tunnel",
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, encapsulation="vxlan"),
    sharers=some(MacSharers, node=the.leg.source_node, device=the.leg.tunnel_device, mac=the.leg.target_tunnel_mac),
    entry=some(FdbEntry, node=the.leg.source_node, device=the.leg.tunnel_device, mac=the.leg.target_tunnel_mac),
)
def vxlan_mac_duplicate(leg: Leg, sharers: MacSharers, entry: FdbEntry) -> Text | None:
    if leg.source_tunnel_mac == leg.target_tunnel_mac:
        return say(
            "{node} and {peer} both have {mac}: neither can send the other a frame.",
            node=leg.source_node,
            peer=leg.target_node,
            mac=leg.target_tunnel_mac,
        )
    others = [address for address in sharers.addresses if address != leg.target_tunnel_address]
    # A node whose tunnel address has just changed leaves its old entry for a while; frames still go to the node.
    if not others or not entry.found or entry.peer == leg.target_node_address:
        return None
    return say(
        "{node} knows {mac}, the MAC of {peer}, also as that of {others}, and sends its frames to {seen}; {peer} is "
        "{address}.",
        node=leg.source_node,
        mac=leg.target_tunnel_mac,
        peer=leg.target_node,
        others=", ".join(others),
        seen=entry.peer,
        address=leg.target_node_address,
    )
