"""The node has no route to its own pod: the block's blackhole answers."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    kernel = cluster.kernel(wound.node)
    for route in kernel.routes(wound.family):
        if route.destination == cluster.cidr(wound.pod, wound.family):
            kernel.delete_route(route)
