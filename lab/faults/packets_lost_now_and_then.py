"""A cable of the node loses every second ping and every second TCP connection's first packet, inside of VXLAN."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.wire import drop_some_requests_in_vxlan

WHERE = ("source",)
VXLAN_PORT = 4789
EVERY = 2  # counted off, not drawn: a first look of two packets each loses one for sure


def inflict(cluster: Cluster, wound: Wound) -> None:
    with cluster.topology.at_cable(wound.node) as device:
        drop_some_requests_in_vxlan(device, VXLAN_PORT, EVERY)
