"""Two nodes claim one block: over BGP both announce it, and half of its packets go to the wrong one."""

from engine.rule import HEALS_NEVER, Finding, cause, say, some, the
from engine.sender import ROUTE
from facts import BlockClaim, Leg, RouteLookup, Text

SWALLOWS = ("blackhole", "unreachable", "prohibit")
CLAIMS = ("confirmed", "")  # pending ones come and go, and are not announced


@cause(
    title="Another node claims the target's block",
    severity="warns",
    last_resort=True,
    remedy="Delete the BlockAffinity of the node that the block itself does not name, once no pod of that node has an "
    "address of the block: `kubectl delete blockaffinities.crd.projectcalico.org NODE-BLOCK` (without `crd.` where "
    "Calico keeps its objects in projectcalico.org/v3).",
    fix="delete_block_affinity",
    at=the.claim.node,
    stage="source node",
    heals_within_s=HEALS_NEVER,
    claim=some(BlockClaim),
    leg=some(Leg, target_block=the.claim.block),
    route=ROUTE,
)
def block_affinity_conflict(claim: BlockClaim, leg: Leg, route: RouteLookup) -> Text | Finding | None:
    """Felix goes by the block alone, so it only matters where BIRD writes the routes (calico_truth.md 1.5): the node
    that claims the block keeps its packets, every other one sends them to either."""
    if claim.state not in CLAIMS or not claim.block_node or claim.node == claim.block_node:
        return None
    said = say(
        "BlockAffinity says that {block} is {claimant}'s, the block itself says {node}'s",
        block=claim.block,
        claimant=claim.node,
        node=claim.block_node,
    )
    if leg.route_by != "bgp":
        return say("{said}: Felix goes by the block, so no packet is lost by it.", said=said)
    if claim.node == leg.source_node:
        if route.type not in SWALLOWS:
            return say("{said}; {claimant} sends its packets on all the same.", said=said, claimant=claim.node)
        return Finding(
            say("{said}: BIRD on {claimant} keeps its packets there.", said=said, claimant=claim.node),
            severity="breaks",
        )
    return Finding(
        say("{said}: both announce it, and packets for it go to either.", said=said),
        severity="degrades",
    )
