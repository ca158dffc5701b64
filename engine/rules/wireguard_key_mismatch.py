"""What is encrypted for another key than the peer has is dropped there, and nobody says so."""

from ipaddress import ip_address, ip_network

from engine.rule import NOT_FELIX, cause, say, some, the
from facts import Leg, Text, WireguardDevice, WireguardPeer


@cause(
    title="The nodes do not agree on a WireGuard key",
    severity="breaks",
    remedy="Restart the calico-node pod of this node: its start writes its key into the annotation and takes its "
    "peers' keys from theirs.",
    fix="restart_calico_node",
    after=["wireguard_device_missing"],
    at=the.device.node,
    stage="source tunnel",
    heals_within_s=NOT_FELIX,
    # Packets that come back have been encrypted rightly; keys that may not be read are no reason to doubt that.
    device=some(WireguardDevice, found=True),
    leg=some(Leg, encapsulation="wireguard", source_node=the.device.node, tunnel_device=the.device.device),
    peer=some(
        WireguardPeer,
        node=the.leg.source_node,
        device=the.leg.tunnel_device,
        public_key=the.leg.target_wireguard_key,
    ),
)
def wireguard_key_mismatch(device: WireguardDevice, leg: Leg, peer: WireguardPeer) -> Text | None:
    if device.public_key and device.public_key != leg.source_wireguard_key:
        return say(
            "{device} on {node} has the key {seen}, but the node's annotation announces {announced}: its peers encrypt "
            "for that one.",
            device=device.device,
            node=device.node,
            seen=device.public_key,
            announced=leg.source_wireguard_key,
        )
    if not peer.found:
        return say(
            "{device} on {node} knows no peer with the key {key}, which {target} announces.",
            device=device.device,
            node=device.node,
            key=peer.public_key,
            target=leg.target_node,
        )
    address = ip_address(leg.target_address)
    if peer.allowed and not any(address in ip_network(prefix) for prefix in peer.allowed):
        return say(
            "{device} on {node} may send {allowed} to {target}, and {address} is none of these.",
            device=device.device,
            node=device.node,
            allowed=", ".join(peer.allowed),
            target=leg.target_node,
            address=leg.target_address,
        )
    return None
