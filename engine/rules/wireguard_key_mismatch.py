"""What is encrypted for another key than the peer has is dropped there, and nobody says so."""

from ipaddress import ip_address, ip_network

from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from facts import CalicoNode, Leg, Text, WireguardDevice, WireguardPeer


@cause(
    title="The nodes do not agree on a WireGuard key",
    severity="breaks",
    remedy="Restart the calico-node pod of this node: its start writes its key into the annotation and takes its "
    "peers' keys from theirs.",
    after=["wireguard_device_missing"],
    at=the.leg.source_node,
    stage="source tunnel",
    heals_within_s=NOT_FELIX,
    leg=some(Leg, encapsulation="wireguard"),
    own=some(CalicoNode, name=the.leg.source_node, family=the.leg.family),
    other=some(CalicoNode, name=the.leg.target_node, family=the.leg.family),
    device=some(WireguardDevice, node=the.leg.source_node, device=the.leg.tunnel_device, found=True),
    peer=some(
        WireguardPeer,
        node=the.leg.source_node,
        device=the.leg.tunnel_device,
        public_key=the.other.wireguard_key,
    ),
)
def wireguard_key_mismatch(
    leg: Leg, own: CalicoNode, other: CalicoNode, device: WireguardDevice, peer: WireguardPeer
) -> Text | Finding | None:
    if device.public_key and own.wireguard_key and device.public_key != own.wireguard_key:
        return say(
            "{device} on {node} has the key {seen}, but the node's annotation announces {announced}: its peers encrypt "
            "for that one.",
            device=device.device,
            node=device.node,
            seen=device.public_key,
            announced=own.wireguard_key,
        )
    if not peer.found:
        return say(
            "{device} on {node} knows no peer with the key {key}, which {target} announces.",
            device=device.device,
            node=device.node,
            key=peer.public_key,
            target=other.name,
        )
    address = ip_address(leg.target_address)
    if peer.allowed and not any(address in ip_network(prefix) for prefix in peer.allowed):
        return say(
            "{device} on {node} may send {allowed} to {target}, and {address} is none of these.",
            device=device.device,
            node=device.node,
            allowed=", ".join(peer.allowed),
            target=other.name,
            address=leg.target_address,
        )
    return None
