"""Another network's VXLAN device has Calico's port and VNI, so Calico's own cannot be made."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import TUNNEL_DEVICE

WHERE = ("source", "target")
OTHER = "flannel.4096"


def inflict(cluster: Cluster, wound: Wound) -> None:
    kernel = cluster.kernel(wound.node)
    kernel.delete_link(TUNNEL_DEVICE)
    kernel.add_link(ifname=OTHER, kind="vxlan", vxlan_id=4096, vxlan_port=4789, vxlan_learning=0, state="up")
