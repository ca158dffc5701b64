"""No address is left for a new pod: its node's pool is a single block, and every address of it is taken.

Every node gets a pool of its own, as large as its block; the pods that are there keep their addresses and go on
working. shop/late, scheduled on the wounded node, waits for one.
"""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.shortage import block_of, fill, one_pool_a_block, wait_in_vain

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> dict[str, str]:
    one_pool_a_block(cluster, 'kubernetes.io/hostname == "{}"')
    fill(cluster, wound.node)
    pool = block_of(cluster, wound.node)["spec"]["cidr"]
    said = "failed to request IPv4 addresses: Assigned 0 out of 1 requested IPv4 addresses; "
    return wait_in_vain(cluster, wound, f"{said}No IPs available in pools: [{pool}]")
