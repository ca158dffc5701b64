"""What both nodes of a leg saw of its packets on their network cards; without it what lies between would be guessed."""

from __future__ import annotations

from engine.rule import some, the
from facts import Leg, Link, Neighbor, Sighting

# Conditions: what left the one node and came in at the other of a leg's packets, and the card they should come in by.
LEFT = some(
    Sighting,
    node=the.leg.source_node,
    way="out",
    source_address=the.leg.source_address,
    target_address=the.leg.target_address,
)
ARRIVED = some(
    Sighting,
    node=the.leg.target_node,
    way="in",
    source_address=the.leg.source_address,
    target_address=the.leg.target_address,
)
CARD = some(Link, node=the.leg.target_node, node_address=the.leg.target_node_address, found=True)

STATIC = ("PERMANENT", "NOARP")
MARGIN_MS = 200  # in which a probe that listens says so four times
UNRESOLVED = ("FAILED", "INCOMPLETE")


def sent(leg: Leg, left: Sighting) -> bool:
    """Did packets of this leg leave for the target's node?"""
    return left.seen > 0 and left.outer_target in ("", leg.target_node_address)


def swallowed(leg: Leg, left: Sighting, arrived: Sighting, card: Link) -> bool:
    """Did this leg's packets leave for the target's node and none arrive, although that node looked on all the time and
    other packets of the same node did? card: by which they should come in.

    What a node drops itself arrives first: it is looked at below every firewall, but not below a program of the card's.
    """
    return sent(leg, left) and arrived.seen == 0 and arrived.enclosed and not card.programs


def dead(left: Sighting, arrived: Sighting, opposite: Sighting, card: Link) -> bool:
    """Did nothing at all come in of what that node sent while this one listened? opposite: what of this one came in at
    that node, which has looked at the same time when it met this one's probe beginning."""
    together = opposite.begun or _at_one_time(left, arrived)
    return arrived.seen == 0 and not arrived.heard and not card.programs and together


def _at_one_time(one: Sighting, other: Sighting) -> bool:
    """Did both nodes look at one time? Each says for how long it did, and both were asked at once, but a node that was
    reached late may have begun only when the other had ended."""
    if min(one.looked_ms, other.looked_ms, one.answered_ms, other.answered_ms) < 0:
        return False
    return max(one.answered_ms, other.answered_ms) < one.looked_ms + other.looked_ms - MARGIN_MS


def kept_wrong(neighbor: Neighbor, mac: str) -> bool:
    """Is it a static entry with another MAC than the peer's? Then frames get lost without anybody else's doing."""
    return bool(neighbor.mac and mac) and neighbor.mac != mac and any(one in neighbor.state for one in STATIC)


def unanswerable(asked: Neighbor, asker: Neighbor, mac: str) -> bool:
    """Does the peer not answer who has its address only because it has a wrong MAC for the asker, whose own is `mac`?

    An answer of IPv6 is sent as any packet; one of IPv4 goes back to where the question came from.
    """
    return not asked.mac and asked.state in UNRESOLVED and kept_wrong(asker, mac)
