"""The node forwards no packets: net.ipv4.ip_forward is 0, and Felix never looks."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

SWITCH = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.kernel(wound.node).namespace.set_sysctl(SWITCH[wound.family], "0")
