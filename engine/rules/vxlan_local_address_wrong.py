"""Frames with another outer address than the node's are dropped, by its own kernel or by the peer's firewall."""

from engine.rule import HEALS_DEVICE, Text, cause, say, some, the
from facts import Leg, Link


@cause(
    title="The VXLAN device sends from an address that is not the node's",
    severity="breaks",
    remedy="Restart the calico-node pod of this node; if the address stays, see which one its IPv4Address (or "
    "IPv6Address) annotation should have (IP_AUTODETECTION_METHOD).",
    after=["vxlan_device_missing", "node_address_stale"],
    at=the.leg.source_node,
    stage="source tunnel",
    heals_within_s=HEALS_DEVICE,
    leg=some(Leg, encapsulation="vxlan"),
    device=some(Link, node=the.leg.source_node, device=the.leg.tunnel_device, found=True),
)
def vxlan_local_address_wrong(leg: Leg, device: Link) -> Text | None:
    # Without a local address the kernel takes the one its route has, which is well.
    if not device.vxlan_local or not leg.source_node_address or device.vxlan_local == leg.source_node_address:
        return None
    return say(
        "{device} on {node} sends from {local}; the node's address is {expected}, "
        "and peers accept VXLAN from no other.",
        device=device.device,
        node=device.node,
        local=device.vxlan_local,
        expected=leg.source_node_address,
    )
