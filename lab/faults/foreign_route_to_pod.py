"""Somebody's route sends what goes to the other pod to the gateway; Felix never removes a foreign one."""

from __future__ import annotations

from dataclasses import replace

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    kernel = cluster.kernel(wound.node)
    default = cluster.default_route(wound.node, wound.family)
    kernel.put_route(replace(default, destination=cluster.cidr(wound.other, wound.family)))
