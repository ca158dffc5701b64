"""IP protocol 4 is closed between two nodes that reach each other otherwise; some clouds carry no such thing."""

from engine.between import ARRIVED, CARD, LEFT, swallowed
from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import Leg, Link, Sighting


@cause(
    title="The network between the nodes swallows IPIP packets",
    severity="breaks",
    remedy="Let IP protocol 4 pass between the nodes, both ways (security group, router). Where the network cannot "
    "carry it, as on Azure, use a pool with VXLAN instead.",
    at=the.leg.source_node,
    stage="underlay",
    heals_within_s=NOT_FELIX,
    leg=some(Leg, encapsulation="ipip", crosses=True),
    left=LEFT,
    arrived=ARRIVED,
    card=CARD,
)
def underlay_drops_ipip(leg: Leg, left: Sighting, arrived: Sighting, card: Link) -> Text | None:
    if not swallowed(leg, left, arrived, card):
        return None
    return say(
        "{node} sent {count} IPIP packets (IP protocol 4) for {target} out by {device} to {address}, and none of them "
        "reached {peer}, while other packets from {node} did: something between the two nodes swallows them.",
        node=leg.source_node,
        count=left.seen,
        target=leg.target,
        device=left.device,
        address=left.outer_target,
        peer=leg.target_node,
    )
