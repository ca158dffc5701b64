"""Another network's VXLAN device has Calico's port and VNI, so Calico's own cannot be made."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import TUNNEL_DEVICE

WHERE = ("source", "target")
OTHER = "flannel.4096"


def inflict(cluster: Cluster, wound: Wound) -> None:
    kernel = cluster.kernel(wound.node)
    own = kernel.link(TUNNEL_DEVICE)
    vni, port = (own.vni, own.port) if own else (4096, 4789)
    kernel.delete_link(TUNNEL_DEVICE)
    kernel.add_link(ifname=OTHER, kind="vxlan", vxlan_id=vni, vxlan_port=port, vxlan_learning=0, state="up")
