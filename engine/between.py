"""What both nodes of a leg saw of its packets on their network cards; without it what lies between would be guessed."""

from __future__ import annotations

from facts import Leg, Neighbor, Sighting

STATIC = ("PERMANENT", "NOARP")
UNRESOLVED = ("FAILED", "INCOMPLETE")


def swallowed(leg: Leg, left: Sighting, arrived: Sighting) -> bool:
    """Did this leg's packets leave for the target's node and none arrive, although that node looked on all the time and
    other packets of the same node did?

    What a node drops itself arrives first: it is looked at below every firewall.
    """
    on_its_way = left.outer_target in ("", leg.target_node_address)
    return left.seen > 0 and arrived.seen == 0 and arrived.enclosed and on_its_way


def dead(arrived: Sighting) -> bool:
    """Did nothing at all come from that node while this one listened?"""
    return arrived.seen == 0 and not arrived.heard


def kept_wrong(neighbor: Neighbor, mac: str) -> bool:
    """Is it a static entry with another MAC than the peer's? Then frames get lost without anybody else's doing."""
    return bool(neighbor.mac and mac) and neighbor.mac != mac and any(one in neighbor.state for one in STATIC)


def unanswerable(asked: Neighbor, asker: Neighbor, mac: str) -> bool:
    """Does the peer not answer who has its address only because it has a wrong MAC for the asker, whose own is `mac`?

    An answer of IPv6 is sent as any packet; one of IPv4 goes back to where the question came from.
    """
    return not asked.mac and asked.state in UNRESOLVED and kept_wrong(asker, mac)
