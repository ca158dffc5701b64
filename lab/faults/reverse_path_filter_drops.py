"""Strict reverse path filtering on a tunnel into which this node does not send its answers back.

Each node has a pool of its own. The peer's tunnels between subnets only, the others always: packets from the peer come
out of the tunnel and the answers go without it, which is well until a filter looks.
"""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import TUNNEL_DEVICE
from lab.objects import calico

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    old = cluster.listed("ippools")
    for block in cluster.listed("ipamblocks"):
        node = block["spec"]["affinity"].removeprefix("host:")
        spec = {
            **old[0]["spec"],
            "cidr": block["spec"]["cidr"],
            "nodeSelector": f'kubernetes.io/hostname == "{node}"',
            "vxlanMode": "CrossSubnet" if node == wound.peer else "Always",
        }
        cluster.create(calico("IPPool", f"{node}-ipv4-ippool", spec))
    for pool in old:  # after the new ones came, so that no address is ever outside of all pools
        cluster.delete("ippools", pool["metadata"]["name"])
    cluster.kernel(wound.node).namespace.set_sysctl(f"ipv4/conf/{TUNNEL_DEVICE}/rp_filter", "1")
