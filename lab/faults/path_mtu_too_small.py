"""The network between the nodes takes smaller packets than every device of theirs says: large ones vanish there."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source",)


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.topology.narrow_cable(wound.node, cluster.sketch.uplink_mtu - 100)
