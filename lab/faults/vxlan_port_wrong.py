"""The node's VXLAN device speaks on another UDP port than all others; everything on it looks well."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WHERE = ("source", "target")
FAMILIES = (4, 6)
PORTS = (8472, 4789)  # Linux's own, Calico's own


def inflict(cluster: Cluster, wound: Wound) -> None:
    felix = cluster.felix(wound.node, wound.family)
    device = felix.applied.device
    felix.remake_device(port=next(port for port in PORTS if device is None or port != device.port))
