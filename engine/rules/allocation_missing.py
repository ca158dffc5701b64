"""The pod's address is free as far as IPAM knows: the next new pod may get it, and without a block nobody routes it."""

from ipaddress import ip_address, ip_network

from engine.rule import HEALS_NEVER, Finding, Text, cause, say, some, the
from facts import Allocation, CalicoNode, Endpoint, Leg


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
)
def allocation_missing(leg: Leg, allocation: Allocation, endpoint: Endpoint, node: CalicoNode) -> Text | Finding | None:
    """No allocation is right outside all pools, with host-local IPAM, and for a pod that is leaving."""
    local = any(ip_address(allocation.address) in ip_network(cidr) for cidr in node.pod_cidrs)
    if allocation.found or not allocation.pool or endpoint.terminating or endpoint.phase != "Running":
        return None
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
        severity="breaks",
    )
