"""The other node's address is gone from Calico's set of nodes whose VXLAN packets are taken."""

from __future__ import annotations

from ipaddress import ip_network

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    wall = cluster.firewall(wound.node, wound.family)
    changes = wall.changes()
    changes.take_out_network(
        f"cali{wound.family}0all-vxlan-net", ip_network(cluster.node_address(wound.peer, wound.family))
    )
    wall.amend(changes)
