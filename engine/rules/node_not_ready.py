"""A node whose kubelet is silent starts and ends no pod; packets still pass unless the machine itself is dead."""

from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import CalicoNode, Endpoint


@cause(
    title="The node is not ready",
    severity="breaks",
    last_resort=True,
    remedy="Look at the node: is the machine up, do its kubelet and container runtime run?",
    at=the.endpoint.node,
    heals_within_s=NOT_FELIX,
    endpoint=some(Endpoint, kind="pod"),
    node=some(CalicoNode, name=the.endpoint.node),
)
def node_not_ready(endpoint: Endpoint, node: CalicoNode) -> Text | None:
    if node.ready or not node.unready:
        return None
    return say("Kubernetes says that {node} is not ready: {why}.", node=node.name, why=node.unready.rstrip("."))
