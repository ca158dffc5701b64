"""A third node's annotation gives it the MAC of the peer's VXLAN device: frames for the peer go to that node."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import ANNOTATION_TUNNEL_MAC, Object

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    def copy(node: Object) -> None:
        node["metadata"]["annotations"][ANNOTATION_TUNNEL_MAC[4]] = cluster.tunnel_mac(wound.peer)

    cluster.change("nodes", wound.third(), copy)
