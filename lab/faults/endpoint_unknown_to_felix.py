"""The pod is not among those the node's Calico sends to chains of their own."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.firewall.chains import DISPATCHES

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    wall = cluster.firewall(wound.node, wound.family)
    changes = wall.changes()
    for dispatch in DISPATCHES:
        changes.take_out(dispatch, cluster.pod(wound.pod, wound.family).interface)
    wall.amend(changes)
