"""Pods travel without a tunnel within the subnet, and the network swallows what carries their addresses."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import Object
from lab.wire import drop_to

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    def tunnel_between_subnets(pool: Object) -> None:
        pool["spec"]["vxlanMode"] = "CrossSubnet"

    for pool in cluster.listed("ippools"):
        cluster.change("ippools", pool["metadata"]["name"], tunnel_between_subnets)
    with cluster.topology.at_cable(wound.node) as device:
        drop_to(device, cluster.pod(wound.other).address)
