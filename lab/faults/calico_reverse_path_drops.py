"""A rule of somebody else's routes packets with a mark by the gateway, and Calico gives that mark to what pods send."""

from __future__ import annotations

from dataclasses import replace

from lab.cluster import Cluster
from lab.faults import Wound
from lab.firewall.chains import Marks

WHERE = ("source", "target")
FAMILIES = (4, 6)
TABLE = 100


def inflict(cluster: Cluster, wound: Wound) -> None:
    kernel = cluster.kernel(wound.node)
    kernel.put_route(replace(cluster.default_route(wound.node, wound.family), table=TABLE))
    kernel.put_marked_rule(100, TABLE, Marks().scratch0, wound.family)
