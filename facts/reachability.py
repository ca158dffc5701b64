"""What fresh packets met on their way; the only proof that a path works now."""

from __future__ import annotations

from facts.fact import Fact


class ProbeResult(Fact, frozen=True, kw_only=True):
    """Fresh packets of one kind from a pod (or from the node) to an address, each with a new id or source port."""

    node: str  # where they were sent
    pod: str  # "" when sent by the node itself
    source_address: str
    target_address: str
    protocol: str  # icmp | tcp | udp
    port: int = 0
    size: int = 0  # length of the IP packet when it was a full-size one sent with DF; 0 for a small one
    sent: int
    answered: int
    outcome: str  # answered | refused | unreachable | too_big | silence | error (when answered == 0, what was met)
    answered_by: str = ""  # address a refusal or ICMP error came from
    detail: str = ""
    rtt_us: int = -1  # median of the answered ones

    def lost_for_its_size(self, small: ProbeResult) -> bool:
        """All of these are lost and all of the small ones on the same way came back: only their size differs."""
        return self.answered == 0 and small.answered == small.sent > 0
