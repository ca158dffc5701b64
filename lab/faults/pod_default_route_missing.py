"""Something in the pod removed its default route."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.kernel import DEFAULT

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    kernel = cluster.place(wound.pod)
    for route in kernel.routes(wound.family):
        if route.destination == DEFAULT[wound.family]:
            kernel.delete_route(route)
