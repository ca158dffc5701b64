"""A policy routing rule sends what the pod sends to a table that knows the gateway only."""

from __future__ import annotations

from dataclasses import replace

from lab.cluster import Cluster
from lab.faults import Wound

TABLE = 100

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    kernel = cluster.kernel(wound.node)
    default = cluster.default_route(wound.node, wound.family)
    kernel.put_route(replace(default, table=TABLE))
    kernel.put_rule(100, TABLE, cluster.cidr(wound.pod, wound.family))
