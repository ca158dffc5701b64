"""A program on a network card (XDP) decides on packets before the kernel and any look of the probe's: what is lost
there looks as if the network had lost it."""

from engine.between import ARRIVED, CARD, LEFT, sent
from engine.rule import NOT_FELIX, Text, cause, listed, say, some, the
from facts import Leg, Link, Sighting


@cause(
    title="A program on a network card may drop the packets",
    severity="warns",
    remedy="Find whose program it is (`bpftool net`, `ip link`): a load balancer, a protection against floods, another "
    "network plugin. Ask its statistics, or take it off for a moment (`ip link set dev CARD xdp off`) and ask again.",
    at=the.leg.target_node,
    stage="target node",
    silent_while_well=True,
    heals_within_s=NOT_FELIX,
    leg=some(Leg, crosses=True),
    left=LEFT,
    arrived=ARRIVED,
    card=CARD,
    tunnel=some(Link, node=the.leg.target_node, device=the.leg.tunnel_device),
)
def xdp_program_attached(leg: Leg, left: Sighting, arrived: Sighting, card: Link, tunnel: Link) -> Text | None:
    """A card's program comes before the probe's look, a tunnel device's after it."""
    if card.programs and arrived.seen == 0 and (sent(leg, left) or not arrived.heard):
        return say(
            "nothing that {peer} sends to {target} is seen on {node}, where an XDP program is attached to {devices}: "
            "it or the network between the nodes drops the packets, and no look tells which.",
            peer=leg.source_node,
            target=leg.target,
            node=card.node,
            devices=listed(card.programs),
        )
    if tunnel.programs and arrived.seen > 0 and leg.expected_device == tunnel.device:
        return say(
            "packets from {peer} reach {node}, where an XDP program is attached to {devices}: it may drop what comes "
            "out of the tunnel.",
            peer=leg.source_node,
            node=tunnel.node,
            devices=listed(tunnel.programs),
        )
    return None
