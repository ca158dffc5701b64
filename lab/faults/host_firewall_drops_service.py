"""Somebody forbids pods the network of the Services' addresses on the asking pod's node, before kube-proxy's rules."""

from __future__ import annotations

from ipaddress import ip_network

from lab import nftables
from lab.cluster import Cluster
from lab.faults import Wound
from lab.nftables import Table
from lab.services import ADDRESSES, FULL_NAME, endpoint, endpoint_slice, put, service

WHERE = ("source",)
FAMILIES = (4, 6)
BEFORE_NAT = -300


def inflict(cluster: Cluster, wound: Wound) -> dict[str, str]:
    there = endpoint_slice([endpoint(cluster.pod(wound.other, wound.family))], wound.family)
    put(cluster, service(wound.family), there)
    table = Table(wound.family, "hardening")
    table.chain("wall", "prerouting", priority=BEFORE_NAT)
    services = table.within("destination", ip_network(ADDRESSES[wound.family]))
    table.rule("wall", *services, nftables.counted(), nftables.decide("drop"), comment="ticket 4712")
    cluster.firewall(wound.node, wound.family).write_beside(table)
    return {"target": FULL_NAME}
