"""WireGuard's UDP port is closed between two nodes that reach each other otherwise: nothing encrypted gets through."""

from engine.between import ARRIVED, CARD, LEFT, swallowed
from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import Leg, Link, Sighting


@cause(
    title="The network between the nodes swallows WireGuard packets",
    severity="breaks",
    remedy="Open WireGuard's UDP port (51820, for IPv6 51821, unless the FelixConfiguration says otherwise) between "
    "the nodes, both ways: security group, router, a firewall below the nodes.",
    after=["wireguard_device_missing"],
    at=the.leg.source_node,
    stage="underlay",
    heals_within_s=NOT_FELIX,
    leg=some(Leg, encapsulation="wireguard", crosses=True),
    left=LEFT,
    arrived=ARRIVED,
    card=CARD,
)
def underlay_drops_wireguard(leg: Leg, left: Sighting, arrived: Sighting, card: Link) -> Text | None:
    if not swallowed(leg, left, arrived, card):
        return None
    return say(
        "{node} sent {count} WireGuard packets for {peer} out by {device} to {address}, and none of them reached "
        "{peer}, while other packets from {node} did: something between the two nodes swallows them.",
        node=leg.source_node,
        count=left.seen,
        device=left.device,
        address=left.outer_target,
        peer=leg.target_node,
    )
