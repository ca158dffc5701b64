"""The tunnel device is gone; Felix would make it again within 10 s."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    device = cluster.felix(wound.node, wound.family).device
    cluster.kernel(wound.node).delete_link(device)
