"""A full pool, held for hours for pods that are gone, and no kube-controllers runs that would free the addresses."""

from __future__ import annotations

from datetime import timedelta

from lab.cluster import Cluster
from lab.faults import Wound
from lab.shortage import block_of, forget_pods, one_pool_a_block, wait_in_vain

WHERE = ("source", "target")
BESIDE = "pool_exhausted"
AGE = timedelta(hours=3)


def inflict(cluster: Cluster, wound: Wound) -> dict[str, str]:
    one_pool_a_block(cluster, 'kubernetes.io/hostname == "{}"')
    forget_pods(cluster, wound.node, AGE)
    pool = block_of(cluster, wound.node)["spec"]["cidr"]
    said = "failed to request IPv4 addresses: Assigned 0 out of 1 requested IPv4 addresses; "
    return wait_in_vain(cluster, wound, f"{said}No IPs available in pools: [{pool}]")
