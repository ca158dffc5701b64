"""A third node's annotation gives it the MAC of the peer's VXLAN device: frames for the peer go to that node."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import ANNOTATION_TUNNEL_MAC, Object

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    def copy(node: Object) -> None:
        node["metadata"]["annotations"][ANNOTATION_TUNNEL_MAC[wound.family]] = cluster.tunnel_mac(
            wound.peer, wound.family
        )

    cluster.change("nodes", wound.third(), copy)
