"""A second route to the pod, to another pod's interface, wins over Felix's, which has a metric."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.kernel import LINK, Route

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    pod = cluster.pod(wound.pod)
    interface = next(one.interface for one in cluster.objects.pods if one.node == wound.node and one != pod)
    cluster.kernel(wound.node).put_route(Route(f"{pod.address}/32", device=interface, scope=LINK))
