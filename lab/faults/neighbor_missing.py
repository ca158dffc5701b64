"""The neighbor entry of the peer's tunnel address is gone; no ARP crosses the tunnel to bring it back."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import TUNNEL_DEVICE

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.kernel(wound.node).delete_neighbor(TUNNEL_DEVICE, cluster.tunnel_address(wound.peer))
