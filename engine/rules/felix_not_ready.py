"""A Felix that is not ready repairs nothing and follows no change; the paths it has programmed live on."""

from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import CalicoNode, FelixHealth


@cause(
    title="Felix is not ready",
    severity="warns",
    remedy="Look at the log of this node's calico-node pod; if it does not say why, restart the pod.",
    fix="restart_calico_node",
    after=["calico_node_missing", "felix_stuck"],
    at=the.health.node,
    heals_within_s=NOT_FELIX,
    health=some(FelixHealth),
    node=some(CalicoNode, name=the.health.node),
)
def felix_not_ready(health: FelixHealth, node: CalicoNode) -> Text | None:
    """A restart takes a moment and is no fault: only a second look, seconds later, counts."""
    if (health.reachable and health.ready) or not health.confirmed:
        return None
    if not (node.felix_health or health.reachable):
        return None
    if not health.reachable:
        return say(
            "Felix on {node} did not answer its health port twice, 3 s apart: {why}.",
            node=health.node,
            why=health.detail,
        )
    return say(
        "Felix on {node} was not ready twice, 3 s apart: {why}.",
        node=health.node,
        why=health.detail or say("it does not say why"),
    )
