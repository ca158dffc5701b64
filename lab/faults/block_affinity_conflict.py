"""A BlockAffinity claims the peer's block for this node, as one that was left behind by a restored backup does."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.objects import block_name, calico

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    block = cluster.block(wound.peer)
    cluster.create(
        calico(
            "BlockAffinity",
            f"{wound.node}-{block_name(block)}",
            {"cidr": block, "deleted": "false", "node": wound.node, "state": "confirmed", "type": "host"},
        )
    )
