"""A table of somebody else's drops what the node sends to the pod itself, or what it takes from the other node."""

from __future__ import annotations

from lab import nftables
from lab.cluster import Cluster
from lab.faults import Wound
from lab.nftables import Table

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> dict[str, str]:
    """The question is then about the node instead of its pod."""
    table = Table(wound.family, "hardening")
    if wound.where == "source":
        table.chain("wall", "output")
        met = table.is_address("destination", cluster.pod(wound.target, wound.family).address)
    else:
        table.chain("wall", "input")
        # So does natOutgoing show the pods of the other node.
        met = table.is_address("source", cluster.node_address(wound.peer, wound.family))
    table.rule("wall", *met, nftables.counted(), nftables.decide("drop"))
    cluster.firewall(wound.node, wound.family).write_beside(table)
    # Nothing need listen on the node itself.
    return {wound.where: wound.node, **({"port": ""} if wound.where == "target" else {})}
