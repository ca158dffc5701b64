"""The tunnel device does not resolve addresses: without the permanent entry for a peer its frames have no target."""

from engine.rule import HEALS_ENTRY, Text, cause, say, some, the
from facts import Leg, Neighbor


@cause(
    title="No neighbor entry for the peer's tunnel address",
    severity="breaks",
    remedy="Put the permanent entry back, as Felix would at its next refresh; nothing else relearns it.",
    fix="replace_neighbor",
    after=[
        "ipv6_disabled",
        "vxlan_device_missing",
        "vxlan_device_down",
        "vxlan_device_mac_wrong",
        "vxlan_device_address_wrong",
        "vxlan_vni_wrong",
        "vxlan_port_wrong",
        "vxlan_local_address_wrong",
    ],
    after_peer=["node_address_missing"],
    at=the.leg.source_node,
    stage="source tunnel",
    heals_within_s=HEALS_ENTRY,
    leg=some(Leg, encapsulation="vxlan"),
    seen=some(Neighbor, node=the.leg.source_node, device=the.leg.tunnel_device, address=the.leg.target_tunnel_address),
)
def neighbor_missing(leg: Leg, seen: Neighbor) -> Text | None:
    if seen.found and seen.mac:
        return None
    return say(
        "the entry for {address} on {device} of {node} is {state}; {peer} is {peer_mac}."
        if seen.found and seen.state
        else "the entry for {address} on {device} of {node} does not exist; {peer} is {peer_mac}.",
        address=seen.address,
        device=seen.device,
        node=seen.node,
        state=seen.state,
        peer=leg.target_node,
        peer_mac=leg.target_tunnel_mac,
    )
