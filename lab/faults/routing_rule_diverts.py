"""A policy routing rule sends what the pod sends to a table that knows the gateway only."""

from __future__ import annotations

from dataclasses import replace

from lab.cluster import Cluster
from lab.faults import Wound

TABLE = 100

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    kernel = cluster.kernel(wound.node)
    [default] = [route for route in kernel.routes() if route.destination == "0.0.0.0/0"]
    kernel.put_route(replace(default, table=TABLE))
    kernel.put_rule(100, TABLE, f"{cluster.pod(wound.pod).address}/32")
