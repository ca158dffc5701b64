"""The FDB sends the peer's frames to a third node, which drops them."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    device = cluster.felix(wound.node, wound.family).device
    elsewhere = cluster.node_address(wound.third(), wound.family)
    cluster.kernel(wound.node).put_fdb(device, cluster.tunnel_mac(wound.peer, wound.family), elsewhere)
