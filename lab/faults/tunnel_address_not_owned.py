"""A node's annotation names the tunnel address that IPAM gave to another node."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import ANNOTATION_TUNNEL, Object

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    other = cluster.tunnel_address(wound.third(), wound.family)

    def edit(node: Object) -> None:
        node["metadata"]["annotations"][ANNOTATION_TUNNEL[wound.family]] = other

    cluster.change("nodes", wound.node, edit)
