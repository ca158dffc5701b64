"""The route to the peer's block leads to the gateway instead of into the tunnel."""

from __future__ import annotations

from dataclasses import replace

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    kernel = cluster.kernel(wound.node)
    [default] = [route for route in kernel.routes() if route.destination == "0.0.0.0/0"]
    kernel.put_route(replace(default, destination=cluster.block(wound.peer)))
