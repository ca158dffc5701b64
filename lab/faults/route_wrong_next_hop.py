"""The route to the peer's block leads to a third node, which may even forward: ping can still work."""

from __future__ import annotations

from dataclasses import replace

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    route = cluster.route_to(wound.node, wound.other, wound.family)
    tunnelled = route.device == cluster.felix(wound.node, wound.family).device
    address = cluster.tunnel_address if tunnelled else cluster.node_address
    cluster.kernel(wound.node).put_route(replace(route, gateway=address(wound.third(), wound.family)))
