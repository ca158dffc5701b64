"""A table of somebody else's, before Calico's, drops what the node passes on to the target pod."""

from __future__ import annotations

from ipaddress import ip_network

from lab import nftables
from lab.cluster import Cluster
from lab.faults import Wound
from lab.nftables import Table

WHERE = ("source", "target")
FAMILIES = (4, 6)
BEFORE_CALICO = -10


def inflict(cluster: Cluster, wound: Wound) -> None:
    table = Table(wound.family, "hardening")
    table.chain("wall", "forward", priority=BEFORE_CALICO)
    to_target = table.within("destination", ip_network(cluster.cidr(wound.target, wound.family)))
    table.rule("wall", *to_target, nftables.counted(), nftables.decide("drop"), comment="ticket 4711")
    cluster.firewall(wound.node, wound.family).write_beside(table)
