"""The node has a static entry with a wrong MAC for the peer's own address: tunnel frames reach nobody."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import UPLINK

WRONG_MAC = "02:00:00:00:00:99"

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.kernel(wound.node).put_neighbor(UPLINK, cluster.node_address(wound.peer), WRONG_MAC)
