"""Frames for the peer's tunnel address carry a MAC that nobody has."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WRONG_MAC = "66:00:00:00:00:99"

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    device = cluster.felix(wound.node, wound.family).device
    cluster.kernel(wound.node).put_neighbor(device, cluster.tunnel_address(wound.peer, wound.family), WRONG_MAC)
