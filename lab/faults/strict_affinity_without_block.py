"""Every block is some node's, this node's are full, and strict affinity forbids to borrow what others have left."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import Object
from lab.shortage import fill, one_pool_a_block, wait_in_vain

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> dict[str, str]:
    def edit(found: Object) -> None:
        found["spec"]["strictAffinity"] = True

    cluster.change("ipamconfigs", "default", edit)
    one_pool_a_block(cluster, "all()")
    fill(cluster, wound.node)
    said = "failed to request IPv4 addresses: Assigned 0 out of 1 requested IPv4 addresses; "
    return wait_in_vain(cluster, wound, f"{said}No more free affine blocks and strict affinity enabled")
