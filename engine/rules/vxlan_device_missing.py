"""Without its VXLAN device a node can send nothing to pods of other nodes and receives nothing from them."""

from engine.rule import HEALS_DEVICE, Text, cause, say, some, the
from facts import Leg, Link


@cause(
    title="The VXLAN device is missing",
    severity="breaks",
    remedy="Restart the calico-node pod of this node; if it stays away, its log says why Felix cannot create it.",
    after=["tunnel_address_missing", "node_address_missing", "vxlan_device_conflict"],
    after_peer=["pool_disabled"],  # of the whole cluster, so of no node
    at=the.leg.source_node,
    stage="source tunnel",
    both_ways=True,
    heals_within_s=HEALS_DEVICE,
    leg=some(Leg, encapsulation="vxlan"),
    device=some(Link, node=the.leg.source_node, device=the.leg.tunnel_device),
)
def vxlan_device_missing(leg: Leg, device: Link) -> Text | None:
    if device.found:
        return None
    return say(
        "{node} has no device {device}, which its VXLAN pool needs.", node=leg.source_node, device=leg.tunnel_device
    )
