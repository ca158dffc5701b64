"""The node's uplink has a smaller MTU than its tunnel reckons with: large packets are lost, a ping passes."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.kernel(wound.node).set_link(cluster.uplink(wound.node), mtu=cluster.sketch.uplink_mtu - 100)
