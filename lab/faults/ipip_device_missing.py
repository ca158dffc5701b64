"""The IPIP device is gone."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
VARIANT = "ipip"
DEVICE = "tunl0"


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.demand(wound.node, DEVICE, "a device of type ipip")
    cluster.kernel(wound.node).delete_link(DEVICE)
