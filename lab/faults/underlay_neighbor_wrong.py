"""The node has a static entry with a wrong MAC for the peer's own address: tunnel frames reach nobody."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WRONG_MAC = "02:00:00:00:00:99"

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.kernel(wound.node).put_neighbor(
        cluster.uplink(wound.node), cluster.node_address(wound.peer, wound.family), WRONG_MAC
    )
