"""A pod's own address means nothing outside of the cluster: what leaves under it is not answered."""

from engine.between import LEFT
from engine.rule import HEALS_CHAIN, HEALS_NEVER, Finding, cause, say, some, the
from facts import Allocation, Leg, ProbeResult, Sighting


@cause(
    title="Packets leave the cluster under the pod's own address",
    severity="breaks",
    remedy="Set natOutgoing of the pod's pool, or teach the network outside its way back to the pods. Where "
    "natOutgoing is set, look at Felix on this node and at what else writes its NAT rules.",
    at=the.leg.source_node,
    stage="underlay",
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, direction="forward", encapsulation="outside", source_kind="pod"),
    allocation=some(Allocation, address=the.leg.source_address),
    left=LEFT,
    tried=some(
        ProbeResult, node=the.leg.source_node, pod=the.leg.source, target_address=the.leg.target_address, size=0
    ),
    own=some(
        ProbeResult,
        node=the.leg.source_node,
        pod="",
        target_address=the.leg.target_address,
        protocol=the.tried.protocol,
        port=the.tried.port,
        size=0,
    ),
)
def nat_outgoing_missing(
    leg: Leg, allocation: Allocation, left: Sighting, tried: ProbeResult, own: ProbeResult
) -> Finding | None:
    """Where nobody outside answers the node either, it is not the pod's address."""
    if left.seen <= 0 or tried.begins or tried.outcome != "silence" or own.outcome not in ("answered", "refused"):
        return None
    text = say(
        "{node} lets packets of {pod} out by {device} under {address}, and {target} does not answer them; "
        "it answers the node's own. {why}",
        node=left.node,
        pod=leg.source,
        device=left.device,
        address=leg.source_address,
        target=leg.target_address,
        why=say("natOutgoing of pool {pool} is set, and the node does not do it.", pool=allocation.pool)
        if allocation.nat_outgoing
        else say("natOutgoing of pool {pool} is not set.", pool=allocation.pool),
    )
    return Finding(text, heals_within_s=HEALS_CHAIN if allocation.nat_outgoing else HEALS_NEVER)
