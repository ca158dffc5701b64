"""Nothing listens in the target pod: packets arrive, and the pod refuses them."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("target",)


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.close_listeners(wound.pod)
