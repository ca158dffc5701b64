"""A route to the other pod's address is left over on an interface of a pod here, and wins over the block's."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.kernel import GLOBAL, LINK, Route

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    destination = cluster.cidr(wound.other, wound.family)
    interface = cluster.pod(wound.pod).interface
    cluster.kernel(wound.node).put_route(
        Route(destination, device=interface, scope=LINK if wound.family == 4 else GLOBAL)
    )
