"""The pod is not in the maps by which the node's Calico sends packets to each pod's own chains."""

from __future__ import annotations

from lab import nftables
from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    wall = cluster.firewall(wound.node, wound.family)
    changes = wall.changes()
    interface = nftables.interface(cluster.pod(wound.pod, wound.family).interface)
    for way in ("from", "to"):
        changes.take_out(f"filter-cali-{way}-wl-dispatch", interface)
    wall.amend(changes)
