"""A route to the other pod's address is left over on an interface of a pod here, and wins over the block's."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.kernel import LINK, Route

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    destination = f"{cluster.pod(wound.other).address}/32"
    interface = cluster.pod(wound.pod).interface
    cluster.kernel(wound.node).put_route(Route(destination, device=interface, scope=LINK))
