"""The routes into a node's WireGuard device are gone."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
NEEDS = "a device of type wireguard"
DEVICE = "wireguard.cali"


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.demand(wound.node, DEVICE, NEEDS)
    kernel = cluster.kernel(wound.node)
    for route in kernel.routes():
        if route.device == DEVICE:
            kernel.delete_route(route)
