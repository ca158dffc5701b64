"""The tunnel device has another MAC than every peer expects: frames for it are somebody else's."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import TUNNEL_DEVICE

WRONG_MAC = "66:00:00:00:00:77"

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.kernel(wound.node).set_link(TUNNEL_DEVICE, mac=WRONG_MAC)
