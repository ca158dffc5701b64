"""Somebody released the address of a living pod: IPAM will give it to the next one."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.objects import container_id

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    pod = cluster.pod(wound.pod)
    cluster.free_address(pod.address, container_id(pod.namespace, pod.name))
