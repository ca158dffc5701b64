"""The node has no route to its own pod: the block's blackhole answers."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    kernel = cluster.kernel(wound.node)
    for route in kernel.routes():
        if route.device == cluster.pod(wound.pod).interface:
            kernel.delete_route(route)
