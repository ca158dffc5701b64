"""The only pool is disabled: every node gives up its tunnel address, and the devices go on looking fine."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import Object

WHERE = ("source",)  # of the whole cluster


def inflict(cluster: Cluster, wound: Wound) -> None:
    def edit(found: Object) -> None:
        found["spec"]["disabled"] = True

    for pool in cluster.listed("ippools"):
        cluster.change("ippools", pool["metadata"]["name"], edit)
