"""The node sends what is for its peer to a router that nobody is: a wrong gateway, or one that died."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.kernel import Route

WHERE = ("source", "target")
FAMILIES = (4, 6)
NOBODY = {4: "172.30.0.222", 6: "fd00:172:30::de"}


def inflict(cluster: Cluster, wound: Wound) -> None:
    peer = cluster.node_address(wound.peer, wound.family)
    device = cluster.topology.nodes[wound.node].uplink
    route = Route(f"{peer}/{32 if wound.family == 4 else 128}", gateway=NOBODY[wound.family], device=device)
    cluster.kernel(wound.node).put_route(route)
