"""IPv6 is disabled on the node's tunnel device: its addresses, routes and neighbors of IPv6 are gone, IPv4 goes on."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (6,)
VARIANT = "dualstack"


def inflict(cluster: Cluster, wound: Wound) -> None:
    device = cluster.felix(wound.node, 6).applied.device
    assert device is not None
    cluster.kernel(wound.node).namespace.set_sysctl(f"ipv6/conf/{device.name}/disable_ipv6", "1")
