"""A pod of a third node has the same address as the asked one."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.objects import APPLICATION_NAMESPACE, running_pod

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    third = wound.third()
    twin = running_pod(
        APPLICATION_NAMESPACE,
        "twin",
        node=third,
        node_address=cluster.node_address(third),
        address=cluster.pod(wound.pod).address,
        time=cluster.now(),
    )
    cluster.create(twin)
