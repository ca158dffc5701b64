"""Nodes whose VXLAN devices disagree on the network's number throw each other's frames away."""

from engine.rule import HEALS_DEVICE, cause, some, the
from facts import Leg, Link


@cause(
    title="The VXLAN device has the wrong VNI",
    severity="breaks",
    remedy="Restart the calico-node pod of this node; if the VNI stays, compare vxlanVNI in FelixConfiguration with "
    "FELIX_VXLANVNI in the pod's environment, and look for another agent that makes devices here.",
    after=["vxlan_device_missing"],
    at=the.leg.source_node,
    stage="source tunnel",
    both_ways=True,
    heals_within_s=HEALS_DEVICE,
    leg=some(Leg, encapsulation="vxlan"),
    device=some(Link, node=the.leg.source_node, device=the.leg.tunnel_device, found=True),
)
def vxlan_vni_wrong(leg: Leg, device: Link) -> str | None:
    if device.vni in (-1, leg.vni):  # -1: not a VXLAN device, or a flow-based one, which has no VNI of its own
        return None
    return (
        f"{device.device} on {device.node} has VNI {device.vni}; Calico's configuration for this node says {leg.vni}."
    )
