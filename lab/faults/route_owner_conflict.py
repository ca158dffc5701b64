"""A pool without encapsulation, and both Felix and BIRD are told to leave its routes to the other."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import Object

WHERE = ("source",)  # of the whole cluster


def inflict(cluster: Cluster, wound: Wound) -> None:
    def encapsulate_nothing(pool: Object) -> None:
        pool["spec"]["vxlanMode"] = "Never"

    def write_no_routes(found: Object) -> None:
        found["spec"]["programClusterRoutes"] = "Disabled"

    for kind in ("felixconfigurations", "bgpconfigurations"):
        cluster.change(kind, "default", write_no_routes)
    for pool in cluster.listed("ippools"):
        cluster.change("ippools", pool["metadata"]["name"], encapsulate_nothing)
