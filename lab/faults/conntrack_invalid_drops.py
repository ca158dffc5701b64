"""What goes to the target pod is not tracked on this node, so that its answers belong to nothing there."""

from __future__ import annotations

from lab import nftables
from lab.cluster import Cluster
from lab.faults import Wound
from lab.nftables import Table

WHERE = ("source", "target")
FAMILIES = (4, 6)
RAW = -300


def inflict(cluster: Cluster, wound: Wound) -> None:
    table = Table(wound.family, "fast_path")
    table.chain("untracked", "prerouting", priority=RAW)
    to_target = table.is_address("destination", cluster.pod(wound.target, wound.family).address)
    table.rule("untracked", *to_target, nftables.counted(), nftables.untracked())
    cluster.firewall(wound.node, wound.family).write_beside(table)
