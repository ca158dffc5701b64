"""A VXLAN device that is down drops every frame, and the kernel removes its routes and neighbors."""

from engine.rule import HEALS_DEVICE, Text, cause, say, some, the
from facts import Leg, Link


@cause(
    title="The VXLAN device is down",
    severity="breaks",
    remedy="Set it up (ip link set vxlan.calico up); a living Felix then writes its routes and neighbors again. If it "
    "goes down again, find who else manages devices here.",
    fix="set_link_up",
    after=["vxlan_device_missing", "vxlan_device_conflict"],
    at=the.leg.source_node,
    stage="source tunnel",
    both_ways=True,
    heals_within_s=HEALS_DEVICE,
    leg=some(Leg, encapsulation="vxlan"),
    device=some(Link, node=the.leg.source_node, device=the.leg.tunnel_device, found=True),
)
def vxlan_device_down(leg: Leg, device: Link) -> Text | None:
    if device.up:
        return None
    return say(
        "{device} on {node} is administratively down; its routes and neighbors are gone with it.",
        device=device.device,
        node=device.node,
    )
