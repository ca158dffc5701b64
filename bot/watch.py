"""Keeps looking at a flow for a while; without it what comes and goes would be over, or not begun, when it is asked."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from bot.errors import UserError
from bot.investigate import Investigation, Means, Outage, Progress, Watched, investigate, save
from bot.reply import evidence
from bot.words import watched
from engine import passage, trains
from facts import (
    DERIVED,
    Blind,
    CalicoNode,
    Diagnosis,
    Fact,
    Leg,
    ProbeResult,
    Sighting,
    StageSighting,
    Train,
    in_turn,
    joined,
    say,
)

EVERY_S = 3.0
COUNT = 5  # packets of a train: of each kind twice as many go out at each look
BAD = 2  # lost packets of one look; a single one may be lost anywhere
MOST_QUESTIONS = 4  # asked anew because something has changed
TOLD = 4  # outages, and differences, that are put into words
PASSING = (ProbeResult, Sighting, StageSighting, Train)  # they differ from look to look by themselves


Kind = tuple[str, str, str, str, int]  # node, pod, target, protocol, port


class Look(NamedTuple):
    """What became of the packets of one look."""

    at: float  # time.monotonic()
    when: datetime.datetime  # UTC
    trains: tuple[Train, ...]  # of the asked kind
    unseen: str = ""  # why a probe told nothing of it

    @property
    def clock(self) -> str:
        return f"{self.when:%H:%M:%S}"

    @property
    def iso(self) -> str:
        return self.when.isoformat(timespec="seconds")

    @property
    def sent(self) -> int:
        return sum(one.sent + one.sent_again for one in self.trains)

    @property
    def lost(self) -> int:
        return sum(one.lost for one in self.trains)

    @property
    def bad(self) -> bool:
        return self.lost >= BAD


async def ask(
    words: Sequence[str], means: Means, *, asked_by: str = "", progress: Progress | None = None
) -> Investigation:
    """Answer `why WORDS [watch [SECONDS]]`. Raises UserError as `investigate` does."""
    question, seconds = watched(words)
    if not seconds:
        return await investigate(question, means, asked_by=asked_by, progress=progress)
    return await watch(question, seconds, means, asked_by=asked_by, progress=progress)


async def watch(
    words: Sequence[str],
    seconds: int,
    means: Means,
    *,
    asked_by: str = "",
    progress: Progress | None = None,
    stop: asyncio.Event | None = None,
) -> Investigation:
    """Answer `why WORDS`, and where no cause is found go on looking: until there is one, `stop`, or time is over.

    Raises UserError as `investigate` does for the first look; what fails later ends nothing.
    """
    stop = stop or asyncio.Event()
    began = time.monotonic()
    again = partial(investigate, words, means, asked_by=asked_by, progress=progress)
    answer = await again()
    asks = trains.watching(answer.diagnosis.facts, COUNT)
    if answer.diagnosis.verdict == "cause" or not asks:
        return answer
    addresses = {one.name: one.internal_address for one in answer.diagnosis.facts if isinstance(one, CalicoNode)}
    good, bad = (None, answer) if _loses(answer.diagnosis) else (answer, None)
    silent = _silent(answer.diagnosis)
    looks: list[Look] = []
    asked = 1
    while not stop.is_set() and time.monotonic() - began < seconds:
        due, when = time.monotonic() + EVERY_S, datetime.datetime.now(datetime.UTC)
        seen = await means.probes.ask(asks, addresses)
        looks.append(_look(seen, answer.diagnosis.facts, silent, when))
        if progress is not None:
            await progress(_so_far(looks, time.monotonic() - began, seconds))
        changed = looks[-1].bad != (looks[-2].bad if len(looks) > 1 else bad is not None)
        if changed and asked < MOST_QUESTIONS:
            asked += 1
            with contextlib.suppress(UserError):
                answer = await again()
                if answer.diagnosis.verdict == "cause":
                    bad = answer
                    break
                if looks[-1].bad:
                    bad = answer
                else:
                    good = answer
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), max(0.0, min(due, began + seconds) - time.monotonic()))
    last = answer if answer.diagnosis.verdict == "cause" else bad or answer
    judged = await asyncio.to_thread(_judged, last.diagnosis, looks, means.worker.diagnose)
    told = in_turn([_told(looks, time.monotonic() - began), *_changes(good, bad)])
    summary = judged.summary_message or judged.summary
    final = msgspec.structs.replace(
        last,
        elapsed_ms=round((time.monotonic() - began) * 1000),
        watched=_watched(looks, time.monotonic() - began),
        diagnosis=msgspec.structs.replace(
            judged,
            summary=say("{first} {next}", first=summary, next=told) if summary else told,
            summary_message=None,
        ),
    )
    return await asyncio.to_thread(save, final, means.state, means.state_mib << 20) if means.state else final


def _loses(diagnosis: Diagnosis) -> bool:
    probes = [fact for fact in diagnosis.facts if isinstance(fact, ProbeResult)]
    legs = [fact for fact in diagnosis.facts if isinstance(fact, Leg) and fact.direction == "forward"]
    return any(passage.loses(leg, probes) for leg in legs)


def _look(seen: Sequence[Fact], known: Sequence[Fact], silent: Collection[Kind], when: datetime.datetime) -> Look:
    """silent: kinds of packets that nobody answers, and that says nothing."""
    legs = [leg for leg in known if isinstance(leg, Leg) and leg.direction == "forward"]
    counted = [one for one in map(_counted, seen) if one is not None and _kind(one) not in silent]
    found: list[Train] = []
    for leg in legs:
        of_leg = trains.of(leg, counted)
        asked = [one for one in of_leg if leg.port_asked and one.protocol == leg.protocol]
        found += asked or [one for one in of_leg if one.protocol == "icmp"]
    unseen = next((one for one in seen if isinstance(one, Blind) and one.look == "probe"), None)
    why = say("{node}: {reason}", node=unseen.node, reason=unseen.reason) if unseen else ""
    return Look(time.monotonic(), when, tuple(dict.fromkeys(found)), why)


def _counted(fact: Fact) -> Train | None:
    """A train, or single packets as if they were half of one."""
    if isinstance(fact, Train):
        return fact
    if not isinstance(fact, ProbeResult) or fact.size:
        return None
    return Train(
        node=fact.node,
        pod=fact.pod,
        source_address=fact.source_address,
        target_address=fact.target_address,
        protocol=fact.protocol,
        port=fact.port,
        sent=fact.sent,
        back=fact.answered,
        sent_again=0,
        back_again=0,
        rtt_us=fact.rtt_us,
        rtt_most_us=fact.rtt_us,
    )


def _silent(diagnosis: Diagnosis) -> set[Kind]:
    """What nobody answers though the flow is well: a policy drops pings, or a server does not speak to strangers."""
    if _loses(diagnosis):
        return set()
    counted = [one for one in map(_counted, diagnosis.facts) if one is not None]
    return {_kind(one) for one in counted if one.sent and not one.back}


def _judged(diagnosis: Diagnosis, looks: Sequence[Look], diagnose: Callable[[Sequence[Fact]], Diagnosis]) -> Diagnosis:
    """The verdict with what was lost meanwhile: a flow that lost packets is not healthy, whatever two of them met, nor
    is one that was not looked at all the time."""
    if diagnosis.verdict == "healthy" and any(look.unseen for look in looks):
        diagnosis = msgspec.structs.replace(diagnosis, verdict="unknown")
    if diagnosis.verdict == "cause" or not any(look.bad for look in looks):
        return diagnosis
    facts = [fact for fact in diagnosis.facts if not isinstance(fact, (*DERIVED, Train))]
    again = diagnose([*facts, *_two_trains(looks)])
    return again if again.verdict != "healthy" else msgspec.structs.replace(again, verdict="unknown")


def _two_trains(looks: Sequence[Look]) -> list[Train]:
    """All that was sent as if it were two trains: the first half of the time, and the second."""
    middle = (len(looks) + 1) // 2
    halves = ([one for look in some for one in look.trains] for some in (looks[:middle], looks[middle:]))
    first, second = ({_kind(one): _sum(one, half) for one in half} for half in halves)
    return [
        msgspec.structs.replace(one, sent_again=second[kind].sent, back_again=second[kind].back)
        for kind, one in first.items()
        if kind in second
    ]


def _kind(train: Train) -> Kind:
    return train.node, train.pod, train.target_address, train.protocol, train.port


def _sum(kind: Train, some: Iterable[Train]) -> Train:
    same = [one for one in some if _kind(one) == _kind(kind)]
    return msgspec.structs.replace(
        kind,
        sent=sum(one.sent + one.sent_again for one in same),
        back=sum(one.back + one.back_again for one in same),
        retried=sum(one.retried for one in same),
        retried_back=sum(one.retried_back for one in same),
    )


def _so_far(looks: Sequence[Look], passed: float, all_of: int) -> str:
    return say(
        "watching, {passed} s of {seconds}: {lost} of {sent} packets were lost",
        passed=f"{passed:.0f}",
        seconds=all_of,
        lost=sum(look.lost for look in looks),
        sent=sum(look.sent for look in looks),
    )


def _told(looks: Sequence[Look], passed: float) -> str:
    sent, lost = sum(look.sent for look in looks), sum(look.lost for look in looks)
    blind = [look for look in looks if look.unseen]
    unseen = (
        say(
            "Of {looks} looks {count} saw nothing, the first at {clock} UTC: {why}.",
            looks=len(looks),
            count=len(blind),
            clock=blind[0].clock,
            why=blind[0].unseen,
        )
        if blind
        else ""
    )
    if not sent:
        nothing = say("Watched for {seconds} s, but nothing was sent that is answered.", seconds=f"{passed:.0f}")
        return in_turn([nothing, *filter(None, [unseen])])
    kinds = joined(sorted({trains.kind(one) for look in looks for one in look.trains}))
    whole = say(
        "Watched for {seconds} s: {lost} of {sent} packets ({kinds}) were lost.",
        seconds=f"{passed:.0f}",
        lost=lost,
        sent=sent,
        kinds=kinds,
    )
    return in_turn([whole, *filter(None, [unseen]), *map(_outage, _outages(looks)[:TOLD])])


def _watched(looks: Sequence[Look], passed: float) -> Watched:
    rtts = sorted(one.rtt_us for look in looks for one in look.trains if one.rtt_us >= 0)
    longest = [one.rtt_most_us for look in looks for one in look.trains]
    lost = [look.iso for look in looks if look.lost]
    return Watched(
        seconds=round(passed, 1),
        rounds=len(looks),
        unseen=sum(bool(look.unseen) for look in looks),
        packets=tuple(sorted({trains.kind(one) for look in looks for one in look.trains})),
        sent=sum(look.sent for look in looks),
        lost=sum(look.lost for look in looks),
        rtt_us=rtts[(len(rtts) - 1) // 2] if rtts else -1,
        rtt_most_us=max(longest, default=-1),
        first_lost=lost[0] if lost else "",
        last_lost=lost[-1] if lost else "",
        outages=tuple(
            Outage(
                began=one.looks[0].iso,
                ended=one.after.iso if one.after else "",
                sent=sum(look.sent for look in one.looks),
                lost=sum(look.lost for look in one.looks),
            )
            for one in _outages(looks)
        ),
    )


class Bad(NamedTuple):
    """Bad looks one after the other."""

    looks: list[Look]
    after: Look | None  # the first good one again; None: it was not over


def _outages(looks: Sequence[Look]) -> list[Bad]:
    found: list[Bad] = []
    for look in looks:
        going_on = found and found[-1].after is None
        if look.bad and going_on:
            found[-1].looks.append(look)
        elif look.bad:
            found.append(Bad([look], None))
        elif going_on:
            found[-1] = found[-1]._replace(after=look)
    return found


def _outage(one: Bad) -> str:
    told = {
        "clock": one.looks[0].clock,
        "lost": sum(look.lost for look in one.looks),
        "sent": sum(look.sent for look in one.looks),
    }
    if one.after is None:
        return say("From {clock} UTC to the end {lost} of {sent} were lost.", **told)
    lasted = one.after.at - one.looks[0].at
    return say("From {clock} UTC on, for {lasted} s, {lost} of {sent} were lost.", lasted=f"{lasted:.0f}", **told)


def _changes(good: Investigation | None, bad: Investigation | None) -> list[str]:
    """What was seen otherwise when packets were lost than when none was."""
    if good is None or bad is None:
        return []
    before, after = _rows(good.diagnosis), _rows(bad.diagnosis)
    differing = [key for key in before if key in after and before[key] != after[key]]
    if not differing:
        return [say("Nothing else that was looked at has changed meanwhile.")]
    return [
        say(
            "Changed on {node}: {what} was {good} while packets passed, and {bad} when they were lost.",
            node=node or say("the cluster"),
            what=what,
            good=before[node, what],
            bad=after[node, what],
        )
        for node, what in differing[:TOLD]
    ]


def _rows(diagnosis: Diagnosis) -> dict[tuple[str, str], str]:
    lasting = [fact for fact in diagnosis.facts if not isinstance(fact, PASSING)]
    rows = evidence.rows(msgspec.structs.replace(diagnosis, facts=tuple(lasting)))
    return {(row.node, row.what): row.seen for row in rows}
