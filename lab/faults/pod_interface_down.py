"""The node's end of the pod's veth is down, and the route to the pod went with it; Felix never raises it."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.kernel(wound.node).set_link(cluster.pod(wound.pod).interface, up=False)
