"""The pool lets its pods out under their own addresses, to which the world outside knows no way."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import Object, gateway

WHERE = ("source",)  # only what leaves the cluster is hurt
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> dict[str, str]:
    def edit(found: Object) -> None:
        found["spec"]["natOutgoing"] = False

    for pool in cluster.listed("ippools"):
        cluster.change("ippools", pool["metadata"]["name"], edit)
    return {"target": gateway(cluster.topology.nodes[wound.node].interfaces[wound.family])}
