"""CNI on the node has lost its credentials: it sets up no pod, although addresses are plenty."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.shortage import wait_in_vain

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> dict[str, str]:
    said = "error getting ClusterInformation: connection is unauthorized: Unauthorized"
    return wait_in_vain(cluster, wound, said)
