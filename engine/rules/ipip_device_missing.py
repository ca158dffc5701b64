"""Without tunl0 a node can neither wrap what it sends to other nodes nor unwrap what they send."""

from engine.rule import HEALS_DEVICE, cause, say, some, the
from facts import Leg, Link, Text


@cause(
    title="The IPIP device is missing",
    severity="breaks",
    remedy="Restart the calico-node pod of this node; if the device stays away, see whether the kernel has the module "
    "ipip (modprobe ipip).",
    at=the.leg.source_node,
    stage="source tunnel",
    both_ways=True,
    heals_within_s=HEALS_DEVICE,
    leg=some(Leg, encapsulation="ipip"),
    device=some(Link, node=the.leg.source_node, device=the.leg.tunnel_device),
)
def ipip_device_missing(leg: Leg, device: Link) -> Text | None:
    if device.found:
        return None
    return say("{node} has no device {device}, which its IPIP pool needs.", node=device.node, device=device.device)
