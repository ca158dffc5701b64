"""The WireGuard device of a node that announces a key is gone."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
NEEDS = "a device of type wireguard"
DEVICE = "wireguard.cali"


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.demand(wound.node, DEVICE, NEEDS)
    cluster.kernel(wound.node).delete_link(DEVICE)
