"""The pod's interface on its node lost its link-local address, and the pod's memory of the gateway has aged."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import UPLINK
from lab.topology import POD_GATEWAY6

WHERE = ("source", "target")
FAMILIES = (6,)
VARIANT = "dualstack"


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.kernel(wound.node).delete_address(cluster.pod(wound.pod, 6).interface, f"{POD_GATEWAY6}/64")
    cluster.place(wound.pod).delete_neighbor(UPLINK, POD_GATEWAY6)
