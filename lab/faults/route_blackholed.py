"""Somebody's blackhole route swallows what goes to the other pod; Felix never removes a foreign one."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.kernel import Route

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.kernel(wound.node).put_route(Route(cluster.cidr(wound.other, wound.family), kind="blackhole"))
