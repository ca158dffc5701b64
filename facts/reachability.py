"""What fresh packets met on their way; the only proof that a path works now."""

from __future__ import annotations

import msgspec

from facts.fact import Fact
from facts.message import Message


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
    # Bytes of the largest IP packet answered where full-size ones were not; -1: not looked for, or not found in time;
    # 0: smaller ones than it are lost, too, and larger ones pass.
    passes: int = -1
    stops: int = -1  # bytes of the smallest one that was not
    answers: bool = False  # what has that size are answers, which the target's probe sent from the asked port
    by_rule: bool = False  # a rule of a firewall ended full-size ones for their size (engine.stops)
    alone: bool = False  # as large ones of another kind came back on the same way: it is no MTU (engine.large)
    # Of pings: bytes of the largest packets that connections to the asked port use, where those pass both ways; 0: not
    # known, or they do not (engine.large).
    connections: int = 0
    # Of TCP or UDP where pings are answered, or of answers where no large packet is known to come there: those tell of
    # the MTU (engine.large).
    beside: bool = False
    unended: int = 0  # TCP connections, not among `answered`, that were made: nothing that follows in them comes back
    # Of TCP: something in the pod's own network answers in the target's place (the proxy of a service mesh), so these
    # were sent past its rules.
    past_proxy: bool = False

    def lost_for_its_size(self, small: ProbeResult) -> bool:
        """All of these are lost and all of the small ones on the same way came back: only their size differs.

        Of TCP, whose first packets carry no data as a rule, only where smaller ones with data came back, too. Of UDP,
        whose small ones a server need not answer, only by what the target's probe answered.
        """
        if self.protocol != "icmp":
            well = self.protocol == "udp" or small.answered == small.sent > 0
            return self.stalls and well
        return self.answered == 0 and small.answered == small.sent > 0 and self.passes != 0

    @property
    def begins(self) -> bool:
        """Did first packets come back, be it that nothing behind them does?"""
        return self.answered + self.unended > 0

    @property
    def stalls(self) -> bool:
        """Of a size, of TCP or UDP: none of these came back, and smaller ones that differ in nothing else did."""
        return self.size > 0 and self.answered == 0 and self.passes > 0


class Train(Fact, frozen=True, kw_only=True):
    """Two trains of small fresh packets, one after the other, each packet with a new id or source port; or the first
    one alone (`sent_again` 0).

    Back came what was answered, be it with a refusal of the target itself.
    """

    node: str  # where they were sent
    pod: str  # "" when sent by the node itself
    source_address: str
    target_address: str
    protocol: str  # icmp | tcp
    port: int = 0
    sent: int  # in the first train
    back: int
    sent_again: int  # in the second one
    back_again: int
    retried: int = 0  # packets lost in the first train, sent again with the same id or source port beside the second
    retried_back: int = 0
    lost_ports: tuple[int, ...] = ()  # tcp: source ports of the packets lost in the first train
    outcome: str = ""  # what the lost ones met, as in ProbeResult; "" where none was lost
    rtt_us: int = -1  # median
    rtt_most_us: int = -1

    @property
    def once(self) -> bool:
        return not self.sent_again

    @property
    def lost(self) -> int:
        """Of all fresh packets of both trains."""
        return self.sent + self.sent_again - self.back - self.back_again

    @property
    def same_lost_again(self) -> bool:
        """Is it always the same ids or source ports that fail? By chance four would have to be lost twice."""
        return self.retried >= 4 and self.retried_back == 0


class TrainLoss(Fact, frozen=True, kw_only=True):
    """What trains of the asked kind show that lost packets, and, where both nodes met them at their devices, between
    which two that was."""

    train: str  # id of the Train
    flow: str
    leg: str  # "forward" | "reverse": of answers
    node: str  # that the sentence is about
    stage: str = ""  # of facts.flow.STAGES; "": not known
    why: str  # one of LOST_BY
    sent: int  # of the asked kind, all trains together
    lost: int
    drop: str = ""  # id of the RuleDrop that ended one of them
    rule: Message | None = None  # which rule that is
    where: str = ""  # node or pod at whose device all of them were still met...
    device: str = ""
    met: int = -1  # ...so many
    answers: str = ""  # "next": from here on it is their answers; "both": it has been
    next_where: str = ""  # and where some were missing
    next_device: str = ""
    next_met: int = -1


class LargeLoss(Fact, frozen=True, kw_only=True):
    """Full-size packets of the asked port, or answers of that size, are lost where smaller ones pass, and as large ones
    of another kind do, and no rule of a firewall was seen to end them."""

    tried: str  # id of the ProbeResult
    flow: str
    leg: str  # "forward" | "reverse": of answers
    node: str  # that the sentence is about
    stage: str = ""  # of facts.flow.STAGES; "": not known
    seen: Message | None = None  # how far they came, as a sentence
    answers_too: bool = False  # answers are lost in the same place as well
    pings: int = 0  # bytes of the pings that pass; 0: none were answered


LOST_BY = (
    "loss",  # something on the way loses them
    "rule",  # a rule that says so: one of so many, at random, or those from some ports
    "limit",  # a rule that lets only so many pass in a second
    "some_rule",  # a rule, which may do so because others let only so many pass
    "target",  # they came to the target, which did not answer all of them
    "nobody",  # all were met everywhere, and yet not all came back
)


class DropReason(msgspec.Struct, frozen=True, kw_only=True):
    """Packets the kernel dropped for one reason in one of its functions."""

    reason: str  # as the kernel calls it: "NETFILTER_DROP"
    place: str  # function of the kernel: "nft_do_chain"
    count: int


class DropReasons(Fact, frozen=True, kw_only=True):
    """IP packets a node's kernel dropped while fresh packets were followed, whoever's they were, in any network
    namespace of it; the most frequent first."""

    node: str
    drops: tuple[DropReason, ...] = ()
