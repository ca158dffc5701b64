"""The neighbor entry of the peer's tunnel address is gone; no ARP crosses the tunnel to bring it back."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    device = cluster.felix(wound.node, wound.family).device
    cluster.kernel(wound.node).delete_neighbor(device, cluster.tunnel_address(wound.peer, wound.family))
