"""A table of somebody's drops ARP that comes in by the pod's interface, and the pod has asked in vain."""

from __future__ import annotations

from lab import nftables
from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import UPLINK
from lab.topology import POD_GATEWAY

WHERE = ("source", "target")
COMES_BY = 6  # linux/netfilter/nf_tables.h: NFT_META_IIFNAME


def inflict(cluster: Cluster, wound: Wound) -> None:
    table = nftables.Table(4, "hardening", of=nftables.ARP)
    table.chain("in", "input")
    device = nftables.interface(cluster.pod(wound.pod).interface)
    table.rule("in", nftables.meta(COMES_BY), nftables.compared(device), nftables.decide("drop"))
    cluster.firewall(wound.node).write_beside(table)
    cluster.place(wound.pod).put_failed_neighbor(UPLINK, POD_GATEWAY)
