"""Frames for the peer's tunnel address carry a MAC that nobody has."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import TUNNEL_DEVICE

WRONG_MAC = "66:00:00:00:00:99"

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.kernel(wound.node).put_neighbor(TUNNEL_DEVICE, cluster.tunnel_address(wound.peer), WRONG_MAC)
