"""The FDB does not say on which node the peer's MAC is: its frames go nowhere."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    device = cluster.felix(wound.node, wound.family).device
    cluster.kernel(wound.node).delete_fdb(device, cluster.tunnel_mac(wound.peer, wound.family))
