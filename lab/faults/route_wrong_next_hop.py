"""The route to the peer's block leads to a third node, which may even forward: ping can still work."""

from __future__ import annotations

from dataclasses import replace

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import TUNNEL_DEVICE

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    kernel = cluster.kernel(wound.node)
    for route in kernel.routes():
        if route.destination == cluster.block(wound.peer):
            tunnelled = route.device == TUNNEL_DEVICE
            address = cluster.tunnel_address if tunnelled else cluster.node_address
            kernel.put_route(replace(route, gateway=address(wound.third())))
