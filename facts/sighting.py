"""Packets met at a node's network cards; without it a loss between nodes and a loss in one of them look the same."""

from __future__ import annotations

from facts.fact import Fact


class Sighting(Fact, frozen=True, kw_only=True):
    """What of a leg's packets left its source node ("out") or reached its target node ("in") while the probes ran.

    They are looked at below every firewall of the node, tunnel header and all.
    """

    node: str
    way: str  # "out" | "in"
    source_address: str  # of the leg: what the packets carry inside of any tunnel
    target_address: str
    seen: int  # packets, where they leave only those of the time of the probes; -1 when nobody could look
    device: str = ""  # by which the last one went
    outer_target: str = ""  # the node address it was sent to; "" without a tunnel
    astray: str = ""  # "out", of a tunnel's packets: another device by which such packets left without the tunnel
    bad_checksums: int = 0  # "in": packets whose TCP or UDP checksum, or that of the tunnel around them, is wrong
    looked_ms: int = -1  # for how long, to this answer; -1: not known
    answered_ms: int = -1  # when the answer came, by the asker's clock since it asked all nodes at once; -1: not known
    # "in" only, about the leg's source node:
    begun: bool = False  # this node looked on when that one's probe said that it begins to send, and looks on itself
    heard: bool = False  # anything at all came from its node address
    enclosed: bool = False  # this node looked on from before it sent its probes until after, by its own word
