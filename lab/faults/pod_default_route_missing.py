"""Something in the pod removed its default route."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    kernel = cluster.place(wound.pod)
    for route in kernel.routes():
        if route.destination == "0.0.0.0/0":
            kernel.delete_route(route)
