"""The route to the other node's pods has an MTU of its own, smaller than the tunnel's: large packets are refused."""

from __future__ import annotations

from dataclasses import replace

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)
MTU = 1300  # IPv6 takes none below 1280


def inflict(cluster: Cluster, wound: Wound) -> None:
    route = cluster.route_to(wound.node, wound.other, wound.family)
    cluster.kernel(wound.node).put_route(replace(route, mtu=MTU))
