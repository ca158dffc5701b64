"""The node's annotation has a wrong prefix length: it tunnels, its peer sends directly, and both filter strictly."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import ANNOTATION_ADDRESS, Object
from lab.shortage import block_of

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    block_of(cluster, wound.node)  # without one nobody gives the tunnel an address

    def tunnel_between_subnets(pool: Object) -> None:
        pool["spec"]["vxlanMode"] = "CrossSubnet"

    def alone_in_its_subnet(node: Object) -> None:
        node["metadata"]["annotations"][ANNOTATION_ADDRESS[4]] = f"{cluster.node_address(wound.node)}/32"

    for pool in cluster.listed("ippools"):
        cluster.change("ippools", pool["metadata"]["name"], tunnel_between_subnets)
    cluster.change("nodes", wound.node, alone_in_its_subnet)
    for node in (wound.node, wound.peer):
        cluster.kernel(node).namespace.set_sysctl("ipv4/conf/all/rp_filter", "1")
