"""A tunnel address that IPAM holds as free works until the day a pod gets it."""

from ipaddress import ip_address, ip_network

from engine.rule import HEALS_NEVER, Text, cause, say, some, the
from facts import Allocation, CalicoNode, Leg


@cause(
    title="The node's tunnel address is free for any pod",
    severity="warns",
    remedy="Restart the calico-node pod of this node: its start allocates a tunnel address again. Never release one.",
    fix="restart_calico_node",
    at=the.leg.source_node,
    stage="source tunnel",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, encapsulation="vxlan"),
    allocation=some(Allocation, address=the.leg.source_tunnel_address),
    node=some(CalicoNode, name=the.leg.source_node, family=the.leg.family),
)
def tunnel_address_freed(leg: Leg, allocation: Allocation, node: CalicoNode) -> Text | None:
    """With host-local IPAM the address comes from the node's own range, and no block knows it."""
    local = any(ip_address(allocation.address) in ip_network(cidr) for cidr in node.pod_cidrs)
    if allocation.found or (local and not allocation.block):
        return None
    return say(
        "{node} uses {address} as its tunnel address, but IPAM holds it as free: this works until a pod gets it.",
        node=leg.source_node,
        address=allocation.address,
    )
