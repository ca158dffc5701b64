"""IPv6 is disabled on the node's uplink: its address and routes of IPv6 are gone, and IPv4 goes on beside it."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (6,)
VARIANT = "dualstack"


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.kernel(wound.node).namespace.set_sysctl(f"ipv6/conf/{cluster.uplink(wound.node)}/disable_ipv6", "1")
