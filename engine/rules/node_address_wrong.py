"""A node found its own address on a device that leads to no other node: peers send their tunnel packets there."""

import re

from engine.between import ARRIVED
from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import CalicoNode, Leg, NodeAddress, ProbeResult, Sighting

# Bridges of containers and virtual machines: they end in their own machine. A uplink may be called br-ex or br0.
ENDS_HERE = re.compile(
    r"docker\d+|br-[0-9a-f]{12}|virbr\d+|lxcbr\d+|lxdbr\d+|cbr\d+|cni\d+|flannel.*|kube-ipvs0|nodelocaldns"
)


@cause(
    title="Calico uses an address of the node that other nodes cannot reach",
    severity="breaks",
    last_resort=True,
    remedy="Tell calico-node which address to use: IP_AUTODETECTION_METHOD=kubernetes-internal-ip, or can-reach= or "
    "interface= with the right uplink (nodeAddressAutodetectionV4 of the operator's Installation).",
    after=["node_address_stale"],
    at=the.leg.target_node,
    stage="target node",
    both_ways=True,
    heals_within_s=NOT_FELIX,
    leg=some(Leg, crosses=True),
    node=some(CalicoNode, name=the.leg.target_node, family=the.leg.family),
    held=some(NodeAddress, node=the.leg.target_node, address=the.leg.target_node_address),
    arrived=ARRIVED,
    used=some(
        ProbeResult, node=the.leg.source_node, pod="", target_address=the.leg.target_node_address, protocol="icmp"
    ),
    internal=some(
        ProbeResult, node=the.leg.source_node, pod="", target_address=the.leg.target_internal_address, protocol="icmp"
    ),
)
def node_address_wrong(
    leg: Leg, node: CalicoNode, held: NodeAddress, arrived: Sighting, used: ProbeResult, internal: ProbeResult
) -> Text | None:
    """A node with several networks is well with any address that its peers reach."""
    if not held.found or leg.target_internal_address == leg.target_node_address or arrived.seen != 0:
        return None
    if ENDS_HERE.fullmatch(held.device):
        return say(
            "Calico's address of {node} is {address} on {device}, which leads to no other node; Kubernetes reaches the "
            "node by {internal}.",
            node=node.name,
            address=held.address,
            device=held.device,
            internal=leg.target_internal_address,
        )
    if used.answered or not internal.answered or arrived.heard:
        return None
    return say(
        "{peer} does not reach {address} ({device}), Calico's address of {node}; it does reach {internal}, by which "
        "Kubernetes knows the node.",
        peer=leg.source_node,
        address=held.address,
        device=held.device,
        node=node.name,
        internal=leg.target_internal_address,
    )
