"""Somebody's route sends what goes to the other pod to the gateway; Felix never removes a foreign one."""

from __future__ import annotations

from dataclasses import replace

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    kernel = cluster.kernel(wound.node)
    [default] = [route for route in kernel.routes() if route.destination == "0.0.0.0/0"]
    kernel.put_route(replace(default, destination=f"{cluster.pod(wound.other).address}/32"))
