"""The part of calico-node that hands out tunnel addresses dies when there is none, and takes its other duties along."""

from engine.rule import HEALS_NEVER, Finding, cause, say, some, the
from facts import CalicoNode, CalicoService, Text


@cause(
    title="calico-node's services crash-loop",
    severity="warns",
    remedy="Read the log of this node's calico-node pod: where it says `failed to reconcile tunnel address`, no "
    "address is left for the node's tunnel: add an IPPool or free addresses, and it starts by itself.",
    after=["calico_node_missing"],
    at=the.service.node,
    heals_within_s=HEALS_NEVER,
    service=some(CalicoService, service="node-services"),
    node=some(CalicoNode, name=the.service.node, family=4),
)
def node_services_crash_looping(service: CalicoService, node: CalicoNode) -> Text | Finding | None:
    """Without a tunnel address it is why there is none; with one, what it would do next is not done."""
    if not service.loops:
        return None
    dies = say(
        "calico-node's services on {node} die and start again: {starts} different processes within {seconds} s",
        node=service.node,
        starts=service.starts,
        seconds=max(1, round(service.watched_ms / 1000)),
    )
    if node.vxlan_expected and not node.tunnel_address:
        return Finding(
            say("{dies}; the node has no tunnel address, which they should give it.", dies=dies),
            severity="breaks",
        )
    return say("{dies}; address monitoring and the renewal of CNI's token stand still with them.", dies=dies)
