"""Without a forwarding entry the tunnel device does not know which node has the peer's MAC and drops the frame."""

from engine.rule import HEALS_ENTRY, Text, cause, say, some, the
from facts import FdbEntry, Leg


@cause(
    title="No forwarding entry for the peer's tunnel MAC",
    severity="breaks",
    remedy="Put the entry back (bridge fdb replace), as Felix would at its next refresh.",
    fix="replace_fdb_entry",
    after=[
        "vxlan_device_missing",
        "vxlan_device_down",
        "vxlan_vni_wrong",
        "vxlan_port_wrong",
        "vxlan_local_address_wrong",
    ],
    after_peer=["tunnel_address_missing", "pool_disabled", "node_address_missing"],
    at=the.leg.source_node,
    stage="source tunnel",
    heals_within_s=HEALS_ENTRY,
    leg=some(Leg, encapsulation="vxlan"),
    entry=some(FdbEntry, node=the.leg.source_node, device=the.leg.tunnel_device, mac=the.leg.target_tunnel_mac),
)
def fdb_entry_missing(leg: Leg, entry: FdbEntry) -> Text | None:
    if entry.found:
        return None
    return say(
        "{device} of {node} has no forwarding entry for {mac}; frames for {peer} should go to {peer_address}.",
        device=entry.device,
        node=entry.node,
        mac=entry.mac,
        peer=leg.target_node,
        peer_address=leg.target_node_address,
    )
