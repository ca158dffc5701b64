"""The node lost its default route, so it answers for no pod's gateway, and the pod has forgotten the last answer."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import UPLINK
from lab.topology import POD_GATEWAY

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    kernel = cluster.kernel(wound.node)
    for route in kernel.routes():
        if route.destination == "0.0.0.0/0":
            kernel.delete_route(route)
    # As its own aging does within 38 s: until then the pod would notice nothing.
    cluster.place(wound.pod).delete_neighbor(UPLINK, POD_GATEWAY)
