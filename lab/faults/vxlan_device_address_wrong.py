"""The tunnel device has another address than the node's annotation says; what the node itself sends is not answered."""

from __future__ import annotations

from ipaddress import IPv4Network

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import TUNNEL_DEVICE

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    kernel = cluster.kernel(wound.node)
    # The wrong address goes in first: a device that loses its last address loses its routes too, another wound.
    last = str(IPv4Network(cluster.block(wound.node))[-1])
    kernel.add_address(TUNNEL_DEVICE, f"{last}/32")
    kernel.delete_address(TUNNEL_DEVICE, f"{cluster.tunnel_address(wound.node)}/32")
