"""Peers tunnel to the address Calico has of a node; without one they withdraw all they had for it."""

from engine.rule import Text, cause, say, some, the
from facts import CalicoNode, Leg

MONITOR_S = 60  # calico-node itself looks at the node's address this often, and writes it again


@cause(
    title="Calico has no address of the node",
    severity="breaks",
    remedy="Restart the calico-node pod of this node: its start finds the address and writes it on the node. If it "
    "stays away, look at IP and IP_AUTODETECTION_METHOD in its environment, and at its log.",
    at=the.leg.target_node,
    stage="target tunnel",
    both_ways=True,
    heals_within_s=MONITOR_S,
    healed_by_monitor=True,
    leg=some(Leg, target_kind="pod"),  # whatever the pool: without the address nobody even knows the node's subnet
    node=some(CalicoNode, name=the.leg.target_node, family=the.leg.family),
)
def node_address_missing(leg: Leg, node: CalicoNode) -> Text | None:
    """Where another plugin gives out addresses, or calico-node is told to leave networking alone, nobody needs one."""
    if leg.obstacle == "pool" or node.backend == "none":
        return None
    if node.address or leg.source_kind == "outside" or leg.source_node == leg.target_node:
        return None
    return say(
        "{node} has no annotation {annotation}; {peer} has nowhere to send its tunnel packets to.",
        node=node.name,
        annotation=f"projectcalico.org/IPv{node.family}Address",
        peer=leg.source_node,
    )
