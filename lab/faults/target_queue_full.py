"""The target's program hangs: it takes no connection any more, and its queue of new ones is full."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("target",)


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.hang(wound.pod)
