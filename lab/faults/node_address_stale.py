"""The node got another address, and Calico still announces the old one to its peers."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import ANNOTATION_ADDRESS, Object

WHERE = ("source", "target")
OLD_ADDRESS = "172.30.0.99/24"


def inflict(cluster: Cluster, wound: Wound) -> None:
    def announce(node: Object) -> None:
        node["metadata"]["annotations"][ANNOTATION_ADDRESS[4]] = OLD_ADDRESS

    cluster.change("nodes", wound.node, announce)
