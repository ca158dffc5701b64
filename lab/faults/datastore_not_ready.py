"""The datastore is locked, as calicoctl does for a migration and somebody forgot to undo: no pod is set up any more."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import Object

WHERE = ("source",)  # of the whole cluster


def inflict(cluster: Cluster, wound: Wound) -> None:
    def edit(found: Object) -> None:
        found["spec"]["datastoreReady"] = False

    cluster.change("clusterinformations", "default", edit)
