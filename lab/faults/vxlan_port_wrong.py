"""The node's VXLAN device speaks on another UDP port than all others; everything on it looks well."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.felix(wound.node, wound.family).remake_device(port=8472)
