"""The tunnel device is down, and its routes went with it; Felix would raise it within 10 s."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    device = cluster.felix(wound.node, wound.family).device
    cluster.kernel(wound.node).set_link(device, up=False)
