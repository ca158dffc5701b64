"""Another network's VXLAN device has Calico's port and VNI, so Calico's own cannot be made."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)
OTHER = "flannel.4096"


def inflict(cluster: Cluster, wound: Wound) -> None:
    kernel, device = cluster.kernel(wound.node), cluster.felix(wound.node, wound.family).device
    own = kernel.link(device)
    vni, port = (own.vni, own.port) if own else (4096, 4789)
    kernel.delete_link(device)
    local = "vxlan_local6" if wound.family == 6 else "vxlan_local"  # tells the kernel the family
    address = {local: cluster.node_address(wound.node, wound.family)}
    kernel.add_link(ifname=OTHER, kind="vxlan", vxlan_id=vni, vxlan_port=port, vxlan_learning=0, state="up", **address)
