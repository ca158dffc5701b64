"""A VXLAN device on another UDP port sends where no peer listens, and does not hear what peers send."""

from engine.rule import HEALS_DEVICE, cause, some, the
from facts import Leg, Link


@cause(
    title="The VXLAN device uses the wrong UDP port",
    severity="breaks",
    remedy="Restart the calico-node pod of this node; if the port stays, compare vxlanPort in FelixConfiguration with "
    "FELIX_VXLANPORT in the pod's environment, and look for another agent that makes devices here.",
    after=["vxlan_device_missing"],
    at=the.leg.source_node,
    stage="source tunnel",
    both_ways=True,
    heals_within_s=HEALS_DEVICE,
    leg=some(Leg, encapsulation="vxlan"),
    device=some(Link, node=the.leg.source_node, device=the.leg.tunnel_device, found=True),
)
def vxlan_port_wrong(leg: Leg, device: Link) -> str | None:
    if device.vxlan_port in (-1, leg.vxlan_port):  # -1: not a VXLAN device
        return None
    return (
        f"{device.device} on {device.node} uses UDP port {device.vxlan_port}; "
        f"Calico's configuration for this node says {leg.vxlan_port}."
    )
