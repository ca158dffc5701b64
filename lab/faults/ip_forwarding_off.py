"""The node forwards no packets: net.ipv4.ip_forward is 0, and Felix never looks."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.kernel(wound.node).namespace.set_sysctl("ipv4/ip_forward", "0")
