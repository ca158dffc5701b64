"""Somebody's blackhole route swallows what goes to the other pod; Felix never removes a foreign one."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.kernel import Route

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    address = cluster.pod(wound.other).address
    cluster.kernel(wound.node).put_route(Route(f"{address}/32", kind="blackhole"))
