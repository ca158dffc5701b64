"""The node has a bridge for containers of its own, and Calico took that bridge's address for the node's."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import ANNOTATION_ADDRESS, Object

WHERE = ("source", "target")
BRIDGE, ADDRESS = "br-0a1b2c3d4e5f", "172.18.0.1/16"


def inflict(cluster: Cluster, wound: Wound) -> None:
    def announce(node: Object) -> None:
        node["metadata"]["annotations"][ANNOTATION_ADDRESS[4]] = ADDRESS

    kernel = cluster.kernel(wound.node)
    kernel.add_link(ifname=BRIDGE, kind="bridge", state="up")
    kernel.add_address(BRIDGE, ADDRESS)
    cluster.change("nodes", wound.node, announce)
