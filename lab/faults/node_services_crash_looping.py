"""No tunnel address is to be had for the node: the part of calico-node that gives it one dies, again and again."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import ANNOTATION_TUNNEL, Object

WHERE = ("source", "target")
BESIDE = "tunnel_address_missing"


def inflict(cluster: Cluster, wound: Wound) -> None:
    def edit(node: Object) -> None:
        del node["metadata"]["annotations"][ANNOTATION_TUNNEL[4]]

    cluster.change("nodes", wound.node, edit)
    cluster.crash_loop(wound.node, "node-services")
