"""IPAM gave the pod's address to another pod: peers route it to that pod's node, or two pods will soon share it."""

from engine.rule import HEALS_NEVER, Finding, Text, cause, say, some, the
from facts import Allocation, Endpoint, Leg


@cause(
    title="IPAM says the pod's address is another pod's",
    severity="breaks",
    remedy="Delete the pod that should not have the address, so that it gets one of its own; "
    "then `calicoctl ipam check` tells whether more of the kind is left.",
    after=["pod_address_disagrees", "pod_ip_duplicate"],
    at=the.leg.target_node,
    stage="source node",
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, target_kind="pod"),
    allocation=some(Allocation, address=the.leg.target_address),
    endpoint=some(Endpoint, name=the.leg.target),
)
def allocation_owner_mismatch(leg: Leg, allocation: Allocation, endpoint: Endpoint) -> Text | Finding | None:
    """The same pod under another container is one that was restarted; one that is leaving may have lost its address."""
    if not allocation.found or allocation.owner_kind != "pod" or allocation.owner in (leg.target, ""):
        return None
    if endpoint.terminating:
        return None
    names = {"pod": leg.target, "node": leg.target_node, "address": allocation.address, "owner": allocation.owner}
    if allocation.node in (leg.target_node, ""):
        return Finding(
            say("{pod} on {node} has {address}, which IPAM gave to {owner} on the same node.", **names),
            severity="warns",
        )
    return say(
        "{pod} on {node} has {address}, which IPAM gave to {owner} on {other}: other nodes send its packets there.",
        **names,
        other=allocation.node,
    )
