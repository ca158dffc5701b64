"""The node got another address, and Calico still announces the old one to its peers."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import ANNOTATION_ADDRESS, Object

WHERE = ("source", "target")
FAMILIES = (4, 6)
OLD = {4: "172.30.0.99/24", 6: "fd00:172:30::99/64"}


def inflict(cluster: Cluster, wound: Wound) -> None:
    def announce(node: Object) -> None:
        node["metadata"]["annotations"][ANNOTATION_ADDRESS[wound.family]] = OLD[wound.family]

    cluster.change("nodes", wound.node, announce)
