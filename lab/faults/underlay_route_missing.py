"""A node has no way to the other node's own address: what its tunnel sends there ends before it leaves."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.kernel import Route

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    peer = cluster.node_address(wound.peer, wound.family)
    # The lab's nodes share a subnet, so the route that would be missing elsewhere must be taken by a longer one here.
    cluster.kernel(wound.node).put_route(Route(f"{peer}/{32 if wound.family == 4 else 128}", kind="unreachable"))
