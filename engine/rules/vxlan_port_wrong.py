"""A VXLAN device on another UDP port sends where no peer listens, and does not hear what peers send."""

from engine.rule import HEALS_DEVICE, HEALS_NEVER, Finding, Text, cause, say, some, the
from facts import CalicoNode, Leg, Link


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
    peer=some(CalicoNode, name=the.leg.target_node, family=the.leg.family),
)
def vxlan_port_wrong(leg: Leg, device: Link, peer: CalicoNode) -> Text | Finding | None:
    if device.vxlan_port == -1:  # not a VXLAN device
        return None
    if device.vxlan_port == leg.vxlan_port:
        return _disagreement(leg, peer)
    return say(
        "{device} on {node} uses UDP port {port}; Calico's configuration for this node says {expected}.",
        device=device.device,
        node=device.node,
        port=device.vxlan_port,
        expected=leg.vxlan_port,
    )


def _disagreement(leg: Leg, peer: CalicoNode) -> Finding | None:
    """Each device is as its node's configuration wants it, and the two want different things; told once, not for each
    node."""
    if peer.vxlan_port == leg.vxlan_port or leg.direction != "forward":
        return None
    text = say(
        "Calico's configuration says UDP port {port} for {node} and {other_port} for {peer}: they do not hear each "
        "other.",
        port=leg.vxlan_port,
        node=leg.source_node,
        other_port=peer.vxlan_port,
        peer=peer.name,
    )
    return Finding(text, heals_within_s=HEALS_NEVER)
