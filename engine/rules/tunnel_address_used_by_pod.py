"""A pod was given the address the node uses for its tunnel: the two take each other's packets."""

from engine.rule import HEALS_NEVER, Finding, Text, cause, say, some, the
from facts import Allocation, Leg


@cause(
    title="A pod was given the node's tunnel address",
    severity="degrades",
    remedy="Restart the calico-node pod of this node: its start checks the address against IPAM and takes a new one. "
    "Then recreate the pod if it still has no network.",
    fix="restart_calico_node",
    after=["tunnel_address_missing"],
    at=the.leg.source_node,
    stage="source tunnel",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, encapsulation="vxlan"),
    allocation=some(Allocation, address=the.leg.source_tunnel_address),
)
def tunnel_address_used_by_pod(leg: Leg, allocation: Allocation) -> Text | Finding | None:
    if not allocation.found or allocation.owner_kind != "pod":
        return None
    text = say(
        "{node} uses {address} as its tunnel address, but IPAM gave it to pod {pod} on {pod_node}: "
        "{node} takes what is meant for that pod."
        if allocation.node
        else "{node} uses {address} as its tunnel address, but IPAM gave it to pod {pod}: "
        "{node} takes what is meant for that pod.",
        node=leg.source_node,
        address=allocation.address,
        pod=allocation.owner,
        pod_node=allocation.node,
    )
    asked = allocation.address in (leg.source_address, leg.target_address)
    return Finding(text, severity="breaks") if asked else text
