"""A node's annotation announces another key than its WireGuard device has."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import Object

WHERE = ("source", "target")
NEEDS = "a device of type wireguard"
DEVICE = "wireguard.cali"
OTHER_KEY = "b3RoZXIga2V5IG90aGVyIGtleSBvdGhlciBrZXkgb3Q="


def inflict(cluster: Cluster, wound: Wound) -> None:
    def announce(node: Object) -> None:
        node["metadata"]["annotations"]["projectcalico.org/WireguardPublicKey"] = OTHER_KEY

    cluster.demand(wound.node, DEVICE, NEEDS)
    cluster.change("nodes", wound.node, announce)
