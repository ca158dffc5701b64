"""Asks the question again after its fix; without it "done" would be believed because the fixer said so."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from bot.errors import UserError
from bot.investigate import Investigation
from bot.language import ENGLISH, Language
from bot.told import WORDS
from facts import Message, ProbeResult, say
from fixes.request import FixRequest

log = logging.getLogger(__name__)

Look = Callable[[FixRequest], Awaitable[tuple[str, str]]]


def second_look(investigate: Callable[..., Awaitable[Investigation]], language: Language = ENGLISH) -> Look:
    """A look at a verified request: verdict (cause | healthy | unknown) and what there is to say. It never raises."""

    async def look(request: FixRequest) -> tuple[str, str]:
        done = request.status.message
        if not request.spec.question:
            unknown = say("{done} Which question it came from is not known, so it was not asked again.", done=done)
            return "unknown", language(unknown)
        if request.spec.question.split()[0] in WORDS:  # no way from A to B, of which it could be asked whether it works
            return "healthy", language(say("verified: {done}", done=done))
        try:
            investigation = await investigate(request.spec.question.split(), asked_by="second look")
        except UserError as error:
            return "unknown", language(say("{done} Asked again, but: {why}", done=done, why=error.sentence))
        except Exception:
            log.exception("the second look at %s broke", request.name)
            broken = say(
                "{done} Asked again, but something in me broke; the log has it under {name}.",
                done=done,
                name=request.name,
            )
            return "unknown", language(broken)
        return investigation.diagnosis.verdict, language(_sentence(done, investigation)).rstrip()

    return look


def _sentence(done: str, investigation: Investigation) -> str:
    diagnosis = investigation.diagnosis
    sent, answered = _probes(diagnosis.facts)
    probes = (
        say("{answered} of {sent} probes answer", answered=answered, sent=sent) if sent else say("no probe was sent")
    )
    summary = diagnosis.summary_message or diagnosis.summary
    if diagnosis.verdict == "healthy":
        return say("verified: {done}; {probes}. {summary}", done=done.rstrip("."), probes=probes, summary=summary)
    if diagnosis.verdict == "cause" and diagnosis.causes:
        cause = diagnosis.causes[0]
        return say(
            "{done} But {asked} is still broken ({probes}): {title}. {text}",
            done=done,
            asked=investigation.asked,
            probes=probes,
            title=Message(template=cause.title),
            text=cause.message or cause.text,
        )
    return say(
        "{done} Whether {asked} works now cannot be said ({probes}). {summary}",
        done=done,
        asked=investigation.asked,
        probes=probes,
        summary=summary,
    )


def _probes(facts: Sequence[Any]) -> tuple[int, int]:
    results = [fact for fact in facts if isinstance(fact, ProbeResult)]
    return sum(result.sent for result in results), sum(result.answered for result in results)
