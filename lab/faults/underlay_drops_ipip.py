"""The network swallows the node's IPIP packets; whatever else it sends arrives."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.wire import drop_protocol

WHERE = ("source", "target")
VARIANT = "ipip"
DEVICE, IPIP = "tunl0", 4


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.demand(wound.node, DEVICE, "a device of type ipip")
    with cluster.topology.at_cable(wound.node) as device:
        drop_protocol(device, IPIP)
