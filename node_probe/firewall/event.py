"""What a tracer tells of a packet, one line at a time; without it each backend's tracer would need its own judge."""

from __future__ import annotations

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A traced packet met a rule that matched, came back from a chain, or met a chain's policy. In the order met."""

    packet: str  # one id for one packet; better the same id where two backends tell of it, but not needed
    backend: str  # "nft" (tells of iptables-nft's rules, too) | "iptables-legacy"
    family: str  # of the table: "ip", "ip6", "inet", "bridge", "netdev"
    table: str
    chain: str
    kind: str  # "rule" | "return" | "policy"
    handle: int = -1  # nft: the rule's
    number: int = 0  # iptables-legacy: 1 for the first `-A` line of the chain, as `iptables-legacy-save` lists it now
    verdict: str = (
        ""  # nft: "drop", "accept", "jump", "goto", "return", "continue"..., or the policy; legacy tells none
    )
    ends: tuple[str, str, int] = ("", "", 0)  # source, target and its port, where the packet was shown with the event
    device: str = ""  # the last one whose hooks told of the packet
    target: str = ""  # the chain of a jump or goto, where it was told
