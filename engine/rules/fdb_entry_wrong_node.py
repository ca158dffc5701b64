"""The peer's MAC is sent to an address that is not the peer's node: another node, or nobody, gets the frames."""

from engine.rule import HEALS_ENTRY, Text, cause, say, some, the
from facts import FdbEntry, Leg


@cause(
    title="Frames for the peer are sent to the wrong node",
    severity="breaks",
    remedy="Replace the entry (bridge fdb replace), as Felix would at its next refresh.",
    after=["vxlan_device_missing", "vxlan_device_down", "vxlan_mac_duplicate"],
    at=the.leg.source_node,
    stage="source tunnel",
    heals_within_s=HEALS_ENTRY,
    leg=some(Leg, encapsulation="vxlan"),
    entry=some(
        FdbEntry, node=the.leg.source_node, device=the.leg.tunnel_device, mac=the.leg.target_tunnel_mac, found=True
    ),
)
def fdb_entry_wrong_node(leg: Leg, entry: FdbEntry) -> Text | None:
    if not leg.target_node_address or entry.peer == leg.target_node_address:
        return None
    return say(
        "{node} sends frames for {mac} to {sent_to}; {peer} is {peer_address}.",
        node=entry.node,
        mac=entry.mac,
        sent_to=entry.peer or say("nowhere"),
        peer=leg.target_node,
        peer_address=leg.target_node_address,
    )
