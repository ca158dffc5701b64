"""IPv6 is disabled inside the pod, as a container runtime or a sysctl of its own does; its IPv4 goes on."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (6,)
VARIANT = "dualstack"


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.place(wound.pod).namespace.set_sysctl("ipv6/conf/all/disable_ipv6", "1")
