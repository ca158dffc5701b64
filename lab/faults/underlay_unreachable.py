"""The network swallows all that the node sends to its peer; what it sends elsewhere arrives."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.wire import drop_to

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    with cluster.topology.at_cable(wound.node) as device:
        drop_to(device, cluster.node_address(wound.peer, wound.family))
