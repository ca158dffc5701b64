"""TCP in the node's VXLAN packets reaches everybody with a wrong checksum, as a broken card leaves it."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.wire import set_checksum_offload, spoil_tcp_in_vxlan

WHERE = ("source", "target")
VXLAN_PORT = 4789


def inflict(cluster: Cluster, wound: Wound) -> None:
    with cluster.kernel(wound.node).namespace.entered():
        # Else there would be no checksum yet that could be wrong.
        set_checksum_offload(cluster.uplink(wound.node), False)
    with cluster.topology.at_cable(wound.node) as device:
        spoil_tcp_in_vxlan(device, VXLAN_PORT)
