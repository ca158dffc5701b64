"""Before Calico 3.30 a tunnel address in another node's block was not routed reliably."""

from engine.rule import HEALS_NEVER, Text, cause, say, some, the
from facts import Allocation, Leg
from facts.version import since

ROUTED_SINCE = (3, 30)  # reference: calico.md 3.5


@cause(
    title="The node's tunnel address lies in another node's block",
    severity="warns",
    remedy="Upgrade Calico to 3.30 or later. Another IPPool or a restart alone changes nothing: a node keeps its "
    "tunnel address as long as the pool of that address is valid.",
    after=["tunnel_address_not_owned", "tunnel_address_used_by_pod"],
    at=the.leg.source_node,
    stage="source tunnel",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, encapsulation="vxlan"),
    allocation=some(Allocation, address=the.leg.source_tunnel_address),
)
def tunnel_address_borrowed(leg: Leg, allocation: Allocation) -> Text | None:
    if not allocation.found or allocation.block_node in ("", leg.source_node):
        return None
    if since(leg.calico_version, ROUTED_SINCE, unknown=True):
        return None
    return say(
        "{node} uses {address} as its tunnel address, from block {block} of {owner}; "
        "Calico {version} does not route such an address reliably.",
        node=leg.source_node,
        address=allocation.address,
        block=allocation.block,
        owner=allocation.block_node,
        version=leg.calico_version,
    )
