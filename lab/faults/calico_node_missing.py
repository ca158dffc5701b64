"""The node has no calico-node pod: a taint keeps the DaemonSet away."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.objects import SYSTEM_NAMESPACE, calico_node_name

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.delete("pods", calico_node_name(wound.node), SYSTEM_NAMESPACE)
