"""A node that announces a WireGuard key and has no such device gets encrypted packets it cannot read."""

from engine.rule import HEALS_DEVICE, cause, say, some, the
from facts import Leg, Link, Text


@cause(
    title="The WireGuard device is missing or down",
    severity="breaks",
    remedy="Restart the calico-node pod of this node; if the device stays away, see whether the kernel has the module "
    "wireguard (modprobe wireguard).",
    fix="set_link_up",
    at=the.leg.source_node,
    stage="source tunnel",
    both_ways=True,
    heals_within_s=HEALS_DEVICE,
    leg=some(Leg, encapsulation="wireguard"),
    device=some(Link, node=the.leg.source_node, device=the.leg.tunnel_device),
)
def wireguard_device_missing(leg: Leg, device: Link) -> Text | None:
    if not device.found:
        return say(
            "{node} has no device {device}, but its annotation announces a WireGuard key: other nodes encrypt what "
            "they send to it.",
            node=device.node,
            device=device.device,
        )
    if not device.up:
        return say("{device} on {node} is administratively down.", device=device.device, node=device.node)
    return None
