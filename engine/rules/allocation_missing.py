"""The pod's address is free as far as IPAM knows: the next new pod may get it, and without a block nobody routes it."""

from ipaddress import ip_address, ip_network

from engine.prefix import covers_more
from engine.rule import HEALS_NEVER, Finding, Text, cause, say, some, the
from facts import Allocation, CalicoNode, Endpoint, Leg, RouteLookup


@cause(
    title="IPAM does not know that the pod's address is in use",
    severity="warns",
    remedy="Recreate the pod: it gets an address that IPAM knows. "
    "`calicoctl ipam check --show-problem-ips` tells whether there are more.",
    after=["pod_address_disagrees"],
    at=the.leg.target_node,
    stage="source node",
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, target_kind="pod"),
    allocation=some(Allocation, address=the.leg.target_address),
    endpoint=some(Endpoint, name=the.leg.target),
    node=some(CalicoNode, name=the.leg.target_node, family=the.leg.family),
    route=some(RouteLookup, destination=the.leg.target_address, source="", incoming=""),
)
def allocation_missing(
    leg: Leg, allocation: Allocation, endpoint: Endpoint, node: CalicoNode, route: RouteLookup
) -> Text | Finding | None:
    """No allocation is right outside all pools, with host-local IPAM, and for a pod that is leaving.

    Felix writes a route for each block to the node that the block is affine to, and one to each allocation elsewhere.
    """
    local = any(ip_address(allocation.address) in ip_network(cidr) for cidr in node.pod_cidrs)
    if allocation.found or not allocation.pool or endpoint.terminating or endpoint.phase != "Running":
        return None
    if leg.source_inside and route.node != leg.source_node:  # the target's own way to its pod tells nothing of others'
        return None
    lost = (leg.route_by == "felix" or leg.encapsulation == "wireguard") and _misses(leg, route)
    if allocation.block and lost and allocation.block_node != leg.target_node:
        return Finding(
            say(
                "{pod} uses {address}, which block {block} of {owner} holds as free. Only what is allocated to {node} "
                "there has a route to it: {sender} has none to {address}."
                if allocation.block_node
                else "{pod} uses {address}, which block {block} holds as free. The block is of no node, and only what "
                "is allocated in it has a route: {sender} has none to {address}.",
                pod=leg.target,
                address=allocation.address,
                block=allocation.block,
                owner=allocation.block_node,
                node=leg.target_node,
                sender=leg.source_node,
            ),
            severity="breaks",
        )
    if allocation.block:
        return say(
            "{pod} uses {address}, which block {block} holds as free: this works until another pod gets it.",
            pod=leg.target,
            address=allocation.address,
            block=allocation.block,
        )
    if local:
        return None
    return Finding(
        say(
            "{pod} uses {address} of pool {pool}, but there is no block that contains it: "
            "no other node has a route to it.",
            pod=leg.target,
            address=allocation.address,
            pool=allocation.pool,
        ),
        severity="breaks" if lost else "warns",
    )


def _misses(leg: Leg, route: RouteLookup) -> bool:
    """Does what the sender's node would do not lead to the target's?"""
    if not route.found or covers_more(route.prefix, leg.target_block):
        return True
    return bool(leg.expected_next_hop) and (route.next_hop or route.destination) != leg.expected_next_hop
