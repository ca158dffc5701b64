"""The FDB does not say on which node the peer's MAC is: its frames go nowhere."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import TUNNEL_DEVICE

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.kernel(wound.node).delete_fdb(TUNNEL_DEVICE, cluster.tunnel_mac(wound.peer))
