"""A second route to the pod, to another pod's interface, wins over Felix's, which has a metric."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.kernel import GLOBAL, LINK, Route

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    others = cluster.families[wound.family].pods
    interface = next(one.interface for one in others if one.node == wound.node and one.full_name != wound.pod)
    # Stronger than Felix's own, which has metric 1024.
    metric, scope = (0, LINK) if wound.family == 4 else (1, GLOBAL)
    route = Route(cluster.cidr(wound.pod, wound.family), device=interface, scope=scope, metric=metric)
    cluster.kernel(wound.node).put_route(route)
