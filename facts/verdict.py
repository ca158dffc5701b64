"""The answer: causes, what was checked and well, and what could not be seen."""

from __future__ import annotations

import msgspec

from facts.fact import Blind, Fact
from facts.flow import Question
from facts.message import Message, kept

SEVERITIES = ("breaks", "degrades", "warns")


class Cause(Fact, frozen=True, kw_only=True):
    """What is wrong, on which node, since which evidence, and the remedy."""

    rule: str  # name of the failure mode
    title: str
    text: str  # the proof in one sentence, with the cluster's own names and numbers
    message: Message | None = None  # the same, before it was put into English
    node: str = ""
    flow: str = ""  # name of the Flow whose leg it is; "" when it is not about a leg, or about several flows
    leg: str = ""  # forward | reverse | both | "" when it is not about a leg
    stage: str = ""  # of facts.flow.STAGES: the first bad one, from the source of `leg` (of forward when "both")
    severity: str = "breaks"
    evidence: tuple[str, ...] = ()  # ids of facts
    remedy: str = ""  # a sentence for a person
    fix: str = ""  # a kind of fix (fixes/kinds) that people can approve, "" when there is none
    other_fixes: tuple[str, ...] = ()  # kinds that are asked where that one has nothing to propose
    heals_within_s: int = 0  # a living Felix repairs it within this time; 0: never; -1: not Felix's business
    felix: str = ""  # what Felix will do about it and when, in words
    felix_message: Message | None = None

    def __post_init__(self) -> None:
        _keep(self, "text", "message")
        _keep(self, "felix", "felix_message")


class Checked(Fact, frozen=True, kw_only=True):
    """A rule that had everything it needs and found nothing wrong."""

    rule: str
    node: str = ""
    flow: str = ""
    leg: str = ""


class Hop(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of a leg. state: ok | bad | unknown."""

    stage: str
    node: str
    name: str  # eth0, cali..., vxlan.calico
    state: str
    met: int = -1  # our own packets that were seen to leave this stage for the next; -1: nobody could look


class LegPath(msgspec.Struct, frozen=True, kw_only=True):
    """The hops of a leg in order, with the last good and the first bad stage ("" when there is none)."""

    flow: str = ""
    direction: str
    source: str
    target: str
    hops: tuple[Hop, ...]
    last_good: str = ""
    first_bad: str = ""
    lost: str = ""  # where our own packets were seen last and where no more; "": not lost on it, or not followed
    lost_message: Message | None = None  # the same, before it was put into English

    def __post_init__(self) -> None:
        _keep(self, "lost", "lost_message")


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """verdict: cause (here is why) | healthy (all checked and well) | unknown (could not see, so cannot say)."""

    verdict: str
    question: Question | None = None
    summary: str = ""  # for healthy and unknown: one sentence with the numbers
    summary_message: Message | None = None  # the same, before it was put into English
    causes: tuple[Cause, ...] = ()
    warnings: tuple[Cause, ...] = ()
    checked: tuple[Checked, ...] = ()
    blind: tuple[Blind, ...] = ()
    path: tuple[LegPath, ...] = ()
    facts: tuple[Fact, ...] = ()  # everything the verdict rests on, derived facts (Leg) included

    def __post_init__(self) -> None:
        _keep(self, "summary", "summary_message")


def _keep(struct: msgspec.Struct, field: str, message_field: str) -> None:
    """What `say` made is kept as plain text, which JSON can carry, and beside it as the message it is made of."""
    text, message = kept(getattr(struct, field))
    if message is not None:
        msgspec.structs.force_setattr(struct, field, text)
        msgspec.structs.force_setattr(struct, message_field, message)
