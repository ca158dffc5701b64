"""The tunnel device has another address than the node's annotation says; what the node itself sends is not answered."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    kernel = cluster.kernel(wound.node)
    # The wrong address goes in first: a device that loses its last address loses its routes too, another wound.
    unused = cluster.families[wound.family].pools[0].network[-2]  # in nobody's block: no node knows a way back to it
    device, length = cluster.felix(wound.node, wound.family).device, unused.max_prefixlen
    kernel.add_address(device, f"{unused}/{length}")
    kernel.delete_address(device, f"{cluster.tunnel_address(wound.node, wound.family)}/{length}")
