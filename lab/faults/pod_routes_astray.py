"""A VPN client inside the pod has put up a barrier: what is not its own network's is unreachable."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.kernel import Route

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    cluster.place(wound.pod).put_route(Route(cluster.cidr(wound.other, wound.family), kind="unreachable"))
