"""The tunnel device is down, and its routes went with it; Felix would raise it within 10 s."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import TUNNEL_DEVICE

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.kernel(wound.node).set_link(TUNNEL_DEVICE, up=False)
