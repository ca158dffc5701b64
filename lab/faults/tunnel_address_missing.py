"""A node lost its tunnel address annotation: its peers withdraw routes and entries, its own device looks fine."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import ANNOTATION_TUNNEL, Object

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    def edit(node: Object) -> None:
        del node["metadata"]["annotations"][ANNOTATION_TUNNEL[wound.family]]

    cluster.change("nodes", wound.node, edit)
