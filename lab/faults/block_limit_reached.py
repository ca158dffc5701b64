"""A node may have one block, and it is full; the pool has hundreds left."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import Object
from lab.shortage import fill, wait_in_vain

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> dict[str, str]:
    def edit(found: Object) -> None:
        found["spec"].update(maxBlocksPerHost=1, strictAffinity=True)  # calicoctl accepts a limit only with the other

    cluster.change("ipamconfigs", "default", edit)
    fill(cluster, wound.node)
    said = "failed to request IPv4 addresses: Assigned 0 out of 1 requested IPv4 addresses; "
    limit = "Need to allocate an IPAM block but could not - limit of 1 blocks reached for this node"
    return wait_in_vain(cluster, wound, said + limit)
