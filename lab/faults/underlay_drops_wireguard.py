"""The network swallows the node's WireGuard packets; whatever else it sends arrives."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.wire import drop_udp

WHERE = ("source", "target")
NEEDS = "a device of type wireguard"
DEVICE, WIREGUARD_PORT = "wireguard.cali", 51820


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.demand(wound.node, DEVICE, NEEDS)
    with cluster.topology.at_cable(wound.node) as device:
        drop_udp(device, WIREGUARD_PORT)
