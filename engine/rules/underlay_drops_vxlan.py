"""The tunnel's UDP port is closed between two nodes that reach each other otherwise, by a security group, say."""

from engine.between import ARRIVED, CARD, LEFT, swallowed
from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import Leg, Link, Sighting


@cause(
    title="The network between the nodes swallows VXLAN packets",
    severity="breaks",
    remedy="Open the tunnel's UDP port between the nodes, both ways: security group, network ACL, router, a firewall "
    "below the nodes. On ESXi and with some NICs the port is taken: use another vxlanPort in the FelixConfiguration.",
    at=the.leg.source_node,
    stage="underlay",
    heals_within_s=NOT_FELIX,
    leg=some(Leg, encapsulation="vxlan", crosses=True),
    left=LEFT,
    arrived=ARRIVED,
    card=CARD,
)
def underlay_drops_vxlan(leg: Leg, left: Sighting, arrived: Sighting, card: Link) -> Text | None:
    if not swallowed(leg, left, arrived, card):
        return None
    return say(
        "{node} sent {count} VXLAN packets (UDP {port}) for {target} out by {device} to {address}, and none of them "
        "reached {peer}, while other packets from {node} did: something between the two nodes swallows them.",
        node=leg.source_node,
        count=left.seen,
        port=leg.vxlan_port,
        target=leg.target,
        device=left.device,
        address=left.outer_target,
        peer=leg.target_node,
    )
