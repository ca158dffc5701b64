"""Nodes whose VXLAN devices disagree on the network's number throw each other's frames away."""

from engine.rule import HEALS_DEVICE, HEALS_NEVER, Finding, Text, cause, say, some, the
from facts import CalicoNode, Leg, Link


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
    peer=some(CalicoNode, name=the.leg.target_node, family=the.leg.family),
)
def vxlan_vni_wrong(leg: Leg, device: Link, peer: CalicoNode) -> Text | Finding | None:
    if device.vni == -1:  # not a VXLAN device, or a flow-based one, which has no VNI of its own
        return None
    if device.vni == leg.vni:
        return _disagreement(leg, peer)
    return say(
        "{device} on {node} has VNI {vni}; Calico's configuration for this node says {expected}.",
        device=device.device,
        node=device.node,
        vni=device.vni,
        expected=leg.vni,
    )


def _disagreement(leg: Leg, peer: CalicoNode) -> Finding | None:
    """Each device is as its node's configuration wants it, and the two want different things; told once, not for each
    node."""
    if peer.vni == leg.vni or leg.direction != "forward":
        return None
    text = say(
        "Calico's configuration says VNI {vni} for {node} and {other_vni} for {peer}: they throw each other's frames "
        "away.",
        vni=leg.vni,
        node=leg.source_node,
        other_vni=peer.vni,
        peer=peer.name,
    )
    return Finding(text, heals_within_s=HEALS_NEVER)
