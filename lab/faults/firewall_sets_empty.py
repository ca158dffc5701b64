"""Somebody deleted Calico's tables: its chains are back, and its sets and maps are empty yet."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    wall = cluster.firewall(wound.node, wound.family)
    changes = wall.changes()
    for name in (
        "filter-cali-from-wl-dispatch",
        "filter-cali-to-wl-dispatch",
        f"cali{wound.family}0all-vxlan-net",
    ):
        changes.clear(name)
    wall.amend(changes)
