"""The network swallows the node's VXLAN packets to everybody; whatever else it sends arrives."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.wire import drop_udp

WHERE = ("source", "target")
FAMILIES = (4, 6)
VXLAN_PORT = 4789


def inflict(cluster: Cluster, wound: Wound) -> None:
    device = cluster.felix(wound.node, wound.family).applied.device
    with cluster.topology.at_cable(wound.node) as cable:
        drop_udp(cable, device.port if device else VXLAN_PORT, wound.family)
