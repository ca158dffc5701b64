"""Somebody took Calico's jump out of the chain that everything forwarded passes: all policy is off."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    wall = cluster.firewall(wound.node, wound.family)
    changes = wall.changes()
    changes.empty("filter-FORWARD")
    wall.amend(changes)
