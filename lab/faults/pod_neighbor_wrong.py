"""The node has a static entry with a MAC that is not the pod's; Felix never looks at those."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WRONG_MAC = "02:00:00:00:00:99"

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    pod = cluster.pod(wound.pod, wound.family)
    cluster.kernel(wound.node).put_neighbor(pod.interface, pod.address, WRONG_MAC)
