"""Felix is told to drop what pods send to their own node, and a pod asks its node."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import Object

WHERE = ("source",)


def inflict(cluster: Cluster, wound: Wound) -> dict[str, str]:
    def edit(found: Object) -> None:
        found["spec"]["defaultEndpointToHostAction"] = "Drop"

    cluster.change("felixconfigurations", "default", edit)
    return {"target": wound.node, "port": ""}
