"""Without calico-node nobody follows changes on a node: its paths live on, and grow old."""

from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import CalicoNode, CalicoPod


@cause(
    title="No calico-node pod runs on the node",
    severity="warns",
    remedy="Look at the DaemonSet calico-node and its pod on this node: taints, node selector, image, resources.",
    at=the.agent.node,
    heals_within_s=NOT_FELIX,
    agent=some(CalicoPod),
    node=some(CalicoNode, name=the.agent.node),
)
def calico_node_missing(agent: CalicoPod, node: CalicoNode) -> Text | None:
    """On Windows nodes Calico's pods are others, of another DaemonSet."""
    if agent.running or node.system == "windows":
        return None
    if not agent.name:
        return say("other nodes have a calico-node pod and {node} has none.", node=agent.node)
    why = agent.reason.rstrip(".") or say("it does not say why")
    return say("{pod} on {node} does not run: {why}.", pod=agent.name, node=agent.node, why=why)
