"""The route to the peer's block is gone: packets leave by the default route, without a tunnel."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.kernel(wound.node).delete_route(cluster.route_to(wound.node, wound.other, wound.family))
