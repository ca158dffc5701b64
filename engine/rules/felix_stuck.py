"""A Felix that stands still, or dies and starts again, answers its health port in between and repairs nothing."""

from engine.rule import NOT_FELIX, cause, say, some, the
from facts import CalicoNode, CalicoService, Text

LONGEST_REST_S = 100  # observed on a running Calico: an idle Felix applies something every 50 s (calico_truth_2.md 2)


@cause(
    title="Felix is stuck",
    severity="warns",
    remedy="Read the log of this node's calico-node pod: what it cannot program stands there (xtables lock, a failing "
    "iptables, nft or ipset binary); then restart the pod.",
    fix="restart_calico_node",
    after=["calico_node_missing"],
    at=the.service.node,
    heals_within_s=NOT_FELIX,
    service=some(CalicoService, service="felix"),
    node=some(CalicoNode, name=the.service.node),
)
def felix_stuck(service: CalicoService, node: CalicoNode) -> Text | None:
    """Where routeRefreshInterval is 0 nothing need be applied, where it is long, less often."""
    if service.loops:
        return say(
            "Felix on {node} dies and starts again: {starts} different processes within {seconds} s.",
            node=service.node,
            starts=service.starts,
            seconds=max(1, round(service.watched_ms / 1000)),
        )
    if not node.route_refresh_s or service.still_s <= max(LONGEST_REST_S, node.route_refresh_s + 10):
        return None
    return say(
        "Felix on {node} has applied nothing for {seconds} s (felix_int_dataplane_apply_time_seconds_count stands at "
        "{applies}); a living one does every {refresh} s at the latest.",
        node=service.node,
        seconds=service.still_s,
        applies=service.applies,
        refresh=node.route_refresh_s,
    )
