"""The route to the peer's block leads to the gateway instead of into the tunnel."""

from __future__ import annotations

from dataclasses import replace

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    route = cluster.route_to(wound.node, wound.other, wound.family)
    default = cluster.default_route(wound.node, wound.family)
    cluster.kernel(wound.node).put_route(replace(default, destination=route.destination))
