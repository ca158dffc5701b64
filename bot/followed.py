"""What counts of a second look; without it two looks, each taken at one moment, would be mixed into one."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from facts import (
    Blind,
    Diagnosis,
    DropReasons,
    Fact,
    FirewallTrace,
    NodeAsk,
    ProbeResult,
    RuleDrop,
    RuleRewrite,
    StageSighting,
    TrafficControl,
    say,
)


def kept(asks: Sequence[NodeAsk], seen: Sequence[Fact]) -> list[Fact]:
    """What firewalls did and where packets were met, and nothing else: of the rest there is a first look already, taken
    at one moment."""
    found: list[Fact] = []
    for ask in asks:
        own = [fact for fact in seen if getattr(fact, "node", "") == ask.node]
        told = [
            fact for fact in own if isinstance(fact, RuleDrop | RuleRewrite | FirewallTrace) or _about_firewall(fact)
        ]
        if not told:
            failed = next((fact.reason for fact in own if isinstance(fact, Blind) and fact.look == "probe"), "")
            unable = say("its probe is of a version that follows no packets through the firewall")
            told = [Blind(node=ask.node, look="firewall trace", reason=failed or unable, minor=True)]
        met = [fact for fact in own if isinstance(fact, StageSighting | TrafficControl | DropReasons)]
        if any(one.later for one in ask.trace):  # first packets are let through: how far is no news
            found += [fact for fact in (*told, *met) if not isinstance(fact, FirewallTrace)]
            continue
        if any(one.large for one in ask.trace):  # of these it is known that they are the large ones
            found += [fact for fact in told if isinstance(fact, RuleDrop)]
            found += [fact for fact in met if not isinstance(fact, DropReasons)]
            continue
        if any(one.size for one in ask.send):  # smaller ones are sent beside them: only a rule that dropped one tells
            found += [fact for fact in told if isinstance(fact, RuleDrop)]
            continue
        found += [*told, *met]
    return list(dict.fromkeys(found))


def _about_firewall(fact: Fact) -> bool:
    return isinstance(fact, Blind) and fact.look.startswith("firewall")


def passed(seen: Sequence[Fact], followed: Sequence[Fact]) -> bool:
    """Of packets that were followed, since none came back at the first look: did all come back now?"""
    lost = {_kind(one) for one in seen if isinstance(one, ProbeResult) and one.sent and not one.answered}
    again = [one for one in followed if isinstance(one, ProbeResult) and _kind(one) in lost]
    return bool(again) and all(one.answered == one.sent > 0 for one in again)


def _kind(one: ProbeResult) -> tuple[str | int | bool, ...]:
    return one.node, one.pod, one.target_address, one.protocol, one.port, one.size, one.answers


def meanwhile(diagnosis: Diagnosis) -> Diagnosis:
    """The same, where nobody knows why the first were lost, with that those that were followed `passed`. It is no
    healthy path: what is lost now and then looks the same."""
    if diagnosis.verdict != "unknown":
        return diagnosis
    summary = say(
        "{said} When the same packets were followed, a few seconds later, they passed: it was mended meanwhile (Felix "
        "mends what is its own), or they are lost now and then. Ask once more, or watch it for a while with --watch.",
        said=diagnosis.summary_message or diagnosis.summary,
    )
    return msgspec.structs.replace(diagnosis, summary=summary)
