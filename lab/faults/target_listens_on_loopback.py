"""The target's server listens on 127.0.0.1 only: it answers itself and refuses everybody else."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("target",)


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.listen_on(wound.pod, "127.0.0.1")
