"""Somebody masquerades whatever leaves a node under a private address, pods' packets to pods among it, and a policy
about the target knows the source by its own address."""

from __future__ import annotations

from ipaddress import ip_network

from lab import nftables
from lab.cluster import Cluster
from lab.faults import Wound
from lab.nftables import Table
from lab.objects import policy_about, selector_of

WHERE = ("source",)
FAMILIES = (4, 6)
BEFORE_CALICO = 90


def inflict(cluster: Cluster, wound: Wound) -> None:
    rule = {"action": "Allow", "source": {"selector": selector_of(wound.source)}}
    cluster.create(policy_about(wound.target, "only-the-source", {"types": ["Ingress"], "ingress": [rule]}))
    table = Table(wound.family, "masq")
    table.chain("agent", "postrouting", kind="nat", priority=BEFORE_CALICO)
    from_pods = table.within("source", ip_network(cluster.cidr(wound.source, wound.family)))
    table.rule("agent", *from_pods, nftables.counted(), nftables.masqueraded())
    cluster.firewall(wound.node, wound.family).write_beside(table)
