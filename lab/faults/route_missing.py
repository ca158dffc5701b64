"""The route to the peer's block is gone: packets leave by the default route, without a tunnel."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    kernel = cluster.kernel(wound.node)
    for route in kernel.routes():
        if route.destination == cluster.block(wound.peer):
            kernel.delete_route(route)
