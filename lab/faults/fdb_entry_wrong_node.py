"""The FDB sends the peer's frames to a third node, which drops them."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import TUNNEL_DEVICE

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    elsewhere = cluster.node_address(wound.third())
    cluster.kernel(wound.node).put_fdb(TUNNEL_DEVICE, cluster.tunnel_mac(wound.peer), elsewhere)
