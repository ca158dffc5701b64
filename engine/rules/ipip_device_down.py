"""An IPIP device that is down sends and takes nothing, and its routes are gone with it."""

from engine.rule import HEALS_DEVICE, cause, say, some, the
from facts import Leg, Link, Text


@cause(
    title="The IPIP device is down",
    severity="breaks",
    remedy="Set it up (ip link set tunl0 up); BIRD or Felix, whoever writes its routes, then does so again. If it goes "
    "down again, find who else manages devices here.",
    fix="set_link_up",
    after=["ipip_device_missing"],
    at=the.leg.source_node,
    stage="source tunnel",
    both_ways=True,
    heals_within_s=HEALS_DEVICE,
    leg=some(Leg, encapsulation="ipip"),
    device=some(Link, node=the.leg.source_node, device=the.leg.tunnel_device, found=True),
)
def ipip_device_down(leg: Leg, device: Link) -> Text | None:
    if device.up:
        return None
    return say(
        "{device} on {node} is administratively down; its routes are gone with it.",
        device=device.device,
        node=device.node,
    )
