"""The peer's MAC is sent to an address that is not the peer's node, or past its tunnel: others, or nobody, get the
frames."""

from engine.rule import HEALS_ENTRY, NOT_FELIX, Finding, Text, cause, say, some, the
from facts import FdbEntry, Leg


@cause(
    title="Frames for the peer are sent to the wrong node",
    severity="breaks",
    remedy="Replace the entry (bridge fdb replace), as Felix would at its next refresh.",
    fix="replace_fdb_entry",
    after=["vxlan_device_missing", "vxlan_device_down", "vxlan_mac_duplicate"],
    at=the.leg.source_node,
    stage="source tunnel",
    heals_within_s=HEALS_ENTRY,
    leg=some(Leg, encapsulation="vxlan"),
    entry=some(
        FdbEntry, node=the.leg.source_node, device=the.leg.tunnel_device, mac=the.leg.target_tunnel_mac, found=True
    ),
)
def fdb_entry_wrong_node(leg: Leg, entry: FdbEntry) -> Text | Finding | None:
    if not leg.target_node_address:
        return None
    if entry.peer == leg.target_node_address:
        return _to_another_tunnel(leg, entry)
    return say(
        "{node} sends frames for {mac} to {sent_to}; {peer} is {peer_address}.",
        node=entry.node,
        mac=entry.mac,
        sent_to=entry.peer or say("nowhere"),
        peer=leg.target_node,
        peer_address=leg.target_node_address,
    )


def _to_another_tunnel(leg: Leg, entry: FdbEntry) -> Finding | None:
    """Whether Felix looks at more of an entry than its address nobody has seen, so nothing is promised."""
    port = entry.port if entry.port not in (-1, leg.vxlan_port) else 0
    vni = entry.vni if entry.vni not in (-1, leg.vni) else 0
    if entry.via:
        return Finding(
            say(
                "the entry for {mac} on {device} of {node} sends to {peer} by {via}, whatever the routes of {node} "
                "say.",
                mac=entry.mac,
                device=entry.device,
                node=entry.node,
                peer=entry.peer,
                via=entry.via,
            ),
            heals_within_s=NOT_FELIX,
        )
    if not port and not vni:
        return None
    return Finding(
        say(
            "the entry for {mac} on {device} of {node} has {own} of its own; {peer} takes UDP port {port} and VNI "
            "{vni}.",
            mac=entry.mac,
            device=entry.device,
            node=entry.node,
            own=say("UDP port {port}", port=port) if port else say("VNI {vni}", vni=vni),
            peer=leg.target_node,
            port=leg.vxlan_port,
            vni=leg.vni,
        ),
        heals_within_s=NOT_FELIX,
    )
