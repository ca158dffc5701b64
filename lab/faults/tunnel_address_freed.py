"""Somebody released the node's tunnel address: nothing changes until a pod gets it."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.free_tunnel_address(wound.node, wound.family)
