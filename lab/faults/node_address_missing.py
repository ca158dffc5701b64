"""A node lost the annotation with its address: its peers withdraw routes and entries, its own devices look fine."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import ANNOTATION_ADDRESS, Object

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    def edit(node: Object) -> None:
        del node["metadata"]["annotations"][ANNOTATION_ADDRESS[wound.family]]

    cluster.change("nodes", wound.node, edit)
