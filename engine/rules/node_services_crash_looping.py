"""The part of calico-node that hands out tunnel addresses dies when there is none, and takes its other duties along."""

from engine.rule import HEALS_NEVER, cause, say, some, the
from facts import CalicoNode, CalicoService, Text


@cause(
    title="calico-node's services crash-loop",
    severity="warns",
    remedy="Read the log of this node's calico-node pod: where it says `failed to reconcile tunnel address`, no "
    "address is left for the node's tunnel: add an IPPool, free addresses, or, where it names strict affinity, set "
    "strictAffinity to false; it then starts by itself.",
    after=["calico_node_missing"],
    at=the.service.node,
    heals_within_s=HEALS_NEVER,
    service=some(CalicoService, service="node-services"),
    node=some(CalicoNode, name=the.service.node, family=4),
)
def node_services_crash_looping(service: CalicoService, node: CalicoNode) -> Text | None:
    """A node that has its tunnel address goes on; one that has none gets none, which is a failure mode of its own."""
    if not service.loops:
        return None
    return say(
        "calico-node's services on {node} die and start again ({starts} different processes within {seconds} s), and "
        "give it no tunnel address."
        if node.vxlan_expected and not node.tunnel_address
        else "calico-node's services on {node} die and start again ({starts} different processes within {seconds} s): "
        "address monitoring and the renewal of CNI's token stand still with them.",
        node=service.node,
        starts=service.starts,
        seconds=max(1, round(service.watched_ms / 1000)),
    )
