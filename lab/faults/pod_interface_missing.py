"""The veth of the pod is gone, and the route to it; only a new pod gets a new one."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.topology.remove_pod_interface(wound.pod)
