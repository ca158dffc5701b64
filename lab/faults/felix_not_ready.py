"""Felix does not become ready: it has lost its connection to the datastore."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.make_felix_unready(wound.node)
