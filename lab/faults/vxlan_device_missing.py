"""The tunnel device is gone; Felix would make it again within 10 s."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import TUNNEL_DEVICE

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.kernel(wound.node).delete_link(TUNNEL_DEVICE)
