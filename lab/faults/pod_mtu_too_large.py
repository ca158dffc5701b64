"""The pod was made with its uplink's MTU: it builds packets that its node's tunnel does not take."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import UPLINK

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.kernel(wound.node).set_link(cluster.pod(wound.pod).interface, mtu=cluster.sketch.uplink_mtu)
    cluster.place(wound.pod).set_link(UPLINK, mtu=cluster.sketch.uplink_mtu)
