"""Two nodes claim one block: over BGP both announce it, and half of its packets go to the wrong one."""

from engine.rule import HEALS_NEVER, Finding, cause, say, some, the
from facts import BlockClaim, Leg, Text

CLAIMS = ("confirmed", "")  # pending ones come and go, and are not announced


@cause(
    title="Another node claims the target's block",
    severity="warns",
    remedy="Delete the BlockAffinity of the node that the block itself does not name, once no pod of that node has an "
    "address of the block: kubectl delete blockaffinities.crd.projectcalico.org NODE-BLOCK.",
    at=the.claim.node,
    stage="source node",
    heals_within_s=HEALS_NEVER,
    claim=some(BlockClaim),
    leg=some(Leg, target_block=the.claim.block),
)
def block_affinity_conflict(claim: BlockClaim, leg: Leg) -> Text | Finding | None:
    """Felix goes by the block alone, so it only matters where BIRD writes the routes (calico_truth.md 1.5)."""
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
        return Finding(
            say("{said}: BIRD on {claimant} keeps its packets there.", said=said, claimant=claim.node),
            severity="breaks",
        )
    return Finding(
        say("{said}: both announce it, and packets for it go to either.", said=said),
        severity="degrades",
    )
