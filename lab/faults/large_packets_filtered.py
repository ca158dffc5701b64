"""A middlebox at the node's cable swallows TCP packets of more than 1300 bytes, inside of VXLAN, and nothing else."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.wire import TCP, drop_large_in_vxlan

WHERE = ("source", "target")
FAMILIES = (4, 6)
VXLAN_PORT = 4789
MOST = 1300


def inflict(cluster: Cluster, wound: Wound) -> None:
    with cluster.topology.at_cable(wound.node) as device:
        drop_large_in_vxlan(device, VXLAN_PORT, TCP, MOST, wound.family)
