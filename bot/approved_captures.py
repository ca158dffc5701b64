"""A capture that a second person approves, as a FixRequest; without it whole packets would need a person who may alone
see what everybody says, or nobody could have them.

It changes nothing, and yet its life is that of a fix: asked, approved, done once, told. What it needs of the cluster is
looked up for its card, and once more when it is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import msgspec

from bot import capture
from bot.capture import Plan, Planned, Take, Wanted
from bot.errors import UserError
from bot.reply.fix_words import HEADERS, WHOLE, of_capture
from facts.capture import CAPTURE_SECONDS
from fixes.kind import EvidenceChanged
from fixes.request import CAPTURE, LIFETIME, Evidence, FixRequest, Person, Spec, digest, stamp

WORKER = "bot"
BEYOND_S = 90.0  # a capture's own time: to look up the pods before, and to upload the file afterwards
BUSY_S = CAPTURE_SECONDS + BEYOND_S + 10.0
TITLE = 300  # characters, the schema's limit
IDENTITY = ("node", "address", "address6", "container_id")  # with another of these it is another pod than was approved


class CapturePlace(NamedTuple):
    """Where in Slack a capture is told: the message of `message` says how it goes, the file is in the thread."""

    channel: str
    thread: str  # "" for the message's own
    message: str  # ts; "" for a new one
    asked_by: str


class Outcome(NamedTuple):
    """What came of a capture. made: the file is in the thread, or there was no packet. sentence: English."""

    made: bool
    sentence: str


class Telling(Protocol):
    """What makes a capture for Slack and tells of it there (bot.captures.Captures)."""

    async def make(self, wanted: Wanted, take: Take, place: CapturePlace) -> Outcome: ...

    async def broken_off(self, wanted: Wanted, place: CapturePlace) -> None: ...


class NotCaptured(Exception):
    """It was tried, and there is no file. Its text says why, without a full stop."""


def capture_spec(wanted: Wanted, planned: Planned, place: CapturePlace, cluster: str, now: datetime) -> Spec:
    """What is asked for: these packets of these two pods as they are now, for this place in Slack."""
    source, target = planned.ends
    arguments = {
        "source": source.name,
        "target": target.name,
        "port": f"{wanted.asked.port}/{wanted.asked.protocol}" if wanted.asked.port else "",
        "seconds": f"{wanted.seconds:g}",
        "packets": str(wanted.packets),
        "content": WHOLE if wanted.payload else HEADERS,
        "channel": place.channel,
        "thread": place.thread,
        "message": place.message,
    }
    evidence = tuple(Evidence(id=end.id, fact=msgspec.to_builtins(end)) for end in planned.ends)
    words = of_capture(arguments)
    return Spec(
        kind=CAPTURE,
        node="",
        arguments=arguments,
        title=str(words.title)[:TITLE],
        evidence=evidence,
        digest=digest(CAPTURE, "", arguments, evidence),
        blast_radius=str(words.blast_radius),
        undo=str(words.undo),
        requested_by=Person(id=place.asked_by, via="slack"),
        requested_at=stamp(now),
        expires_at=stamp(now + LIFETIME),
        cluster=cluster,
    )


def scope(planned: Planned, place: CapturePlace) -> list[str]:
    """Exactly what would be captured, and for where, a line each."""
    return [*planned.lines, f"a file for Slack: channel {place.channel}, thread {place.thread or '(a new one)'}"]


class CaptureHands:
    """Approved captures, made by this bot (fixes.hands.Hands)."""

    name = "the bot"

    def __init__(self, captures: Telling, plan: Plan, take: Take) -> None:
        self._captures = captures
        self._plan = plan
        self._take = take
        self._ended: dict[str, tuple[bool, str]] = {}  # digest -> what came of those this process began

    def mine(self, request: FixRequest) -> bool:
        return request.spec.kind == CAPTURE and not request.spec.node

    async def preview(self, spec: Spec) -> list[str]:
        """Raises ValueError for what cannot be captured."""
        wanted, place = _read(spec)
        return scope(await self._planned(wanted), place)

    async def holds(self, spec: Spec) -> None:
        """Raises EvidenceChanged where one of the pods is not what it was, ValueError for what cannot be captured."""
        seen = {item.fact.get("name"): item.fact for item in spec.evidence}
        for end in (await self._planned(_read(spec)[0])).ends:
            before, now = seen.get(end.name), msgspec.to_builtins(end)
            if before is None:
                raise EvidenceChanged(f"The request does not say what {end.name} was when it was made.")
            if [now[field] for field in IDENTITY] != [before.get(field) for field in IDENTITY]:
                raise EvidenceChanged(f"{end.name} is another pod now, {_where(now)}; it was {_where(before)}.")

    async def execute(self, spec: Spec) -> None:
        wanted, place = _read(spec)
        self._ended[spec.digest] = False, "A file may be in the thread all the same."
        try:
            async with asyncio.timeout(wanted.seconds + BEYOND_S):
                outcome = await self._captures.make(wanted, self._take, place)
        except TimeoutError:
            raise NotCaptured(f"it was not done {BEYOND_S:g} s after its time") from None
        except asyncio.CancelledError:  # the bot stops: that is to be said, not to be left as "being done"
            raise NotCaptured("the bot was stopped in the middle of it") from None
        except UserError as error:
            raise NotCaptured(error.sentence.rstrip(".")) from error
        self._ended[spec.digest] = outcome.made, outcome.sentence if outcome.made else "There is no file."
        if not outcome.made:
            raise NotCaptured(outcome.sentence.rstrip("."))

    async def verify(self, spec: Spec) -> tuple[bool, str]:
        """What came of it; of what another bot began and did not end nobody knows."""
        if ended := self._ended.pop(spec.digest, None):
            return ended
        await self._captures.broken_off(*_read(spec))
        return False, "If there is no file in the thread, there is none at all; ask again."

    async def _planned(self, wanted: Wanted) -> Planned:
        try:
            return await self._plan(wanted)
        except UserError as error:
            raise ValueError(error.sentence.rstrip(".")) from error


def _read(spec: Spec) -> tuple[Wanted, CapturePlace]:
    """What is to be captured, and for where. Raises ValueError for words that cannot be meant."""
    said = spec.arguments
    if said.get("content") not in (HEADERS, WHOLE) or not said.get("channel"):
        raise ValueError("the request does not say what is to be captured, or for which channel")
    try:
        wanted = capture.wanted(
            [said.get("source", ""), said.get("target", ""), said.get("port", "")],
            seconds=said.get("seconds", ""),
            packets=said.get("packets", ""),
            payload=said["content"] == WHOLE,
        )
    except UserError as error:
        raise ValueError(error.sentence.rstrip(".")) from error
    return wanted, CapturePlace(
        channel=said["channel"],
        thread=said.get("thread", ""),
        message=said.get("message", ""),
        asked_by=spec.requested_by.id,
    )


def _where(end: Mapping[str, Any]) -> str:
    addresses = " ".join(filter(None, (str(end.get("address") or ""), str(end.get("address6") or ""))))
    return f"{addresses or 'without an address'} on {end.get('node') or 'no node'}"
