"""A tunnel address that IPAM gave to somebody else is used twice, or will be."""

from engine.rule import HEALS_NEVER, Text, cause, say, some, the
from facts import Allocation, Leg

HANDLES = {4: "vxlan-tunnel-addr-", 6: "vxlan-v6-tunnel-addr-"}  # then the node's name


@cause(
    title="The node's tunnel address is not its own",
    severity="breaks",
    remedy="Restart the calico-node pod of this node: its start checks the address against IPAM and takes a new one.",
    fix="restart_calico_node",
    after=["tunnel_address_missing"],
    at=the.leg.source_node,
    stage="source tunnel",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, encapsulation="vxlan"),
    allocation=some(Allocation, address=the.leg.source_tunnel_address),
)
def tunnel_address_not_owned(leg: Leg, allocation: Allocation) -> Text | None:
    """A free address and a pod's are failure modes of their own."""
    if not allocation.found or allocation.owner_kind == "pod":
        return None
    if allocation.handle.split("\r")[0] == HANDLES[leg.family] + leg.source_node:
        return None
    if not allocation.handle and allocation.node == leg.source_node:
        return None  # what it says of its owner is enough: very old allocations have no handle
    owner = f"{allocation.owner_kind} {allocation.owner}".strip() or allocation.handle or say("somebody else")
    return say(
        "{node} uses {address} as its tunnel address, but IPAM gave it to {owner}.",
        node=leg.source_node,
        address=allocation.address,
        owner=owner,
    )
