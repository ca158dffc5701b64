"""Felix dies half a second after each start, and is started again."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.crash_loop(wound.node, "felix")
