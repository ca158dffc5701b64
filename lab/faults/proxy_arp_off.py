"""The pod's interface answers for its gateway no more, and the pod has forgotten the answer; Felix never looks."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import UPLINK
from lab.topology import POD_GATEWAY

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    interface = cluster.pod(wound.pod).interface
    cluster.kernel(wound.node).namespace.set_sysctl(f"ipv4/conf/{interface}/proxy_arp", "0")
    # As its own aging does within 38 s: until then the pod would notice nothing.
    cluster.place(wound.pod).delete_neighbor(UPLINK, POD_GATEWAY)
