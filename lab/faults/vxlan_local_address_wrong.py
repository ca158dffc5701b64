"""The node's VXLAN device sends from an address the node does not have; everything else on it looks well."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

UNUSED = {4: "172.30.0.200", 6: "fd00:172:30::c8"}

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.felix(wound.node, wound.family).remake_device(local=UNUSED[wound.family])
