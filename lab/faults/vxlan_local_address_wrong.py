"""The node's VXLAN device sends from an address the node does not have; everything else on it looks well."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

UNUSED = "172.30.0.200"

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.felix(wound.node).remake_device(local=UNUSED)
