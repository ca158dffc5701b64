"""The tunnel device has another MAC than every peer expects: frames for it are somebody else's."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WRONG_MAC = "66:00:00:00:00:77"

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    device = cluster.felix(wound.node, wound.family).device
    cluster.kernel(wound.node).set_link(device, mac=WRONG_MAC)
