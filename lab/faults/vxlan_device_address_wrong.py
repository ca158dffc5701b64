"""The tunnel device has another address than the node's annotation says; what the node itself sends is not answered."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import TUNNEL_DEVICE

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    kernel = cluster.kernel(wound.node)
    # The wrong address goes in first: a device that loses its last address loses its routes too, another wound.
    unused = cluster.objects.pools[0].network[-2]  # in nobody's block: no node knows a way back to it
    kernel.add_address(TUNNEL_DEVICE, f"{unused}/32")
    kernel.delete_address(TUNNEL_DEVICE, f"{cluster.tunnel_address(wound.node)}/32")
