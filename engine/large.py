"""Large packets of one kind alone that are lost: no MTU, for as large ones of another kind pass; without it a filter
that eats large TCP would be taken for a narrow network, and so would a firewall's rule about large pings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from engine import passage
from engine.plan import expected_legs
from engine.sights import WITH_HEADER, Track, tracks
from facts import Fact, LargeLoss, Leg, ProbeResult, StageSighting
from facts.flow import mirrored


def marked(facts: Sequence[Fact]) -> list[Fact]:
    """The facts, with full-size packets told of which as large ones of another kind came back on the same way, and
    those that say nothing of an MTU because pings do."""
    probes = [fact for fact in facts if isinstance(fact, ProbeResult)]
    legs = expected_legs(facts)
    followed = _followed(legs, facts)
    told: dict[ProbeResult, ProbeResult] = {}
    for leg in [one for one in legs if one.direction == "forward"]:
        pinged = _pinged(leg, probes)
        there = any(one.answered and not one.answers for one in passage.large_of_port(leg, probes))
        for one in [one for one in passage.sent(leg, probes) if one.size]:
            alone = not one.answered and _others_pass(one, leg, probes) and (pinged or not _wrapped(one, leg, followed))
            told[one] = msgspec.structs.replace(
                one,
                alone=alone,
                beside=one.port > 0 and (pinged or (one.answers and not there)),
                connections=0 if one.port else _connections(leg, probes),
            )
    return [told.get(fact, fact) if isinstance(fact, ProbeResult) else fact for fact in facts]


def unproved(leg: Leg, facts: Sequence[Fact]) -> bool:
    """Were large packets followed, as lost ones are, and nobody tells what became of them?"""
    ends = {leg.source_address, leg.target_address}
    followed = {
        one.large
        for one in facts
        if isinstance(one, StageSighting) and one.large and {one.source_address, one.target_address} == ends
    }
    of_port = passage.large_of_port(leg, [one for one in facts if isinstance(one, ProbeResult)])
    return bool(followed - {"back" if one.answers else "there" for one in of_port})


def _pinged(leg: Leg, probes: Sequence[ProbeResult]) -> bool:
    return any(one.answered for one in passage.sent(leg, probes) if one.protocol == "icmp")


def _connections(leg: Leg, probes: Sequence[ProbeResult]) -> int:
    of_port = [one for one in passage.large_of_port(leg, probes) if one.protocol == "tcp"]
    both = {one.answers for one in of_port} == {False, True} and all(map(passage.all_answered, of_port))
    return max(one.size for one in of_port) if both else 0


def _others_pass(lost: ProbeResult, leg: Leg, probes: Sequence[ProbeResult]) -> bool:
    """A ping goes there and its answer back in the same size, so it proves both ways, and both are to be proved of it.
    Where pings say nothing, the one way of the asked port proves that the other is no narrower."""
    of_port = passage.large_of_port(leg, probes)
    if lost.protocol == "icmp":
        return {one.answers for one in of_port if one.size >= lost.size and one.answered} == {False, True}
    if _pinged(leg, probes):
        return _pings(leg, probes, lost.size) > 0
    return any(one.answered for one in of_port)


def _pings(leg: Leg, probes: Sequence[ProbeResult], size: int) -> int:
    """Bytes of pings, as large at least, that came back from either end; 0 where none did."""
    between = {(leg.source, leg.target_address), (leg.target, leg.source_address)}
    passed = [
        one.size if one.answered == one.sent > 0 else one.passes
        for one in probes
        if one.protocol == "icmp" and one.size and (one.pod, one.target_address) in between
    ]
    return max((one for one in passed if one >= size), default=0)


def losses(facts: Sequence[Fact]) -> Iterator[Fact]:
    """A LargeLoss for each kind of large packets of which others as large pass: of another kind, or the other way.

    facts: as `marked` gives them, with what rules ended.
    """
    legs = expected_legs(facts)
    probes = [fact for fact in facts if isinstance(fact, ProbeResult)]
    followed = _followed(legs, facts)
    for leg in [leg for leg in legs if leg.direction == "forward"]:
        found = [
            _placed(one, leg, _of(one, leg, followed), _pings(leg, probes, one.size))
            for one in passage.loses_large_only(leg, probes)
            if one.stalls and one.alone and not one.by_rule
        ]
        if len(found) == 2 and _in_one_place(*found):
            found = [msgspec.structs.replace(one, answers_too=True) for one in found if one.leg == "forward"]
        yield from found


def _in_one_place(one: LargeLoss, other: LargeLoss) -> bool:
    """As far as anybody knows."""
    return not (one.stage and other.stage) or one.stage == mirrored(other.stage)


def _followed(legs: Sequence[Leg], facts: Sequence[Fact]) -> dict[str, list[Track]]:
    return {way: tracks(legs, facts, large=way) for way in ("there", "back")}


def _wrapped(lost: ProbeResult, leg: Leg, followed: Mapping[str, Sequence[Track]]) -> bool:
    """Was it lost between the nodes, in a tunnel? What is there sees no ports, and may be narrow one way: a bridge with
    br_netfilter cuts what it hands out to a narrow port in pieces, and drops what is as large that comes in by it."""
    track = _of(lost, leg, followed)
    return track is not None and track.leg.encapsulation in WITH_HEADER and track.first_bad == "underlay"


def _of(lost: ProbeResult, leg: Leg, followed: Mapping[str, Sequence[Track]]) -> Track | None:
    way, direction = ("back", "reverse") if lost.answers else ("there", "forward")
    return next((one for one in followed[way] if (one.leg.flow, one.leg.direction) == (leg.flow, direction)), None)


def _placed(lost: ProbeResult, leg: Leg, track: Track | None, pings: int) -> LargeLoss:
    ends = (leg.target_node, leg.source_node) if lost.answers else (leg.source_node, leg.target_node)
    return LargeLoss(
        tried=lost.id,
        flow=leg.flow,
        leg="reverse" if lost.answers else "forward",
        node=ends[track is not None and track.first_bad.startswith("target")],
        stage=track.first_bad if track else "",
        seen=track.told.message if track and track.told else None,
        pings=pings,
    )
