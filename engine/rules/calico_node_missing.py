"""Without calico-node nobody follows changes on a node: its paths live on, and grow old."""

from engine.rule import NOT_FELIX, cause, some, the
from facts import CalicoPod


@cause(
    title="No calico-node pod runs on the node",
    severity="warns",
    remedy="Look at the DaemonSet calico-node and its pod on this node: taints, node selector, image, resources.",
    at=the.agent.node,
    heals_within_s=NOT_FELIX,
    agent=some(CalicoPod),
)
def calico_node_missing(agent: CalicoPod) -> str | None:
    if agent.running:
        return None
    if not agent.name:
        return f"other nodes have a calico-node pod and {agent.node} has none."
    return f"{agent.name} on {agent.node} does not run: {agent.reason.rstrip('.') or 'it does not say why'}."
