"""Somebody's script gave the node's end of the pod's interface a smaller MTU, and the pod was not told."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
MTU = 1300


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.kernel(wound.node).set_link(cluster.pod(wound.pod).interface, mtu=MTU)
