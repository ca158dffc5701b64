"""Asks the question again after its fix; without it "done" would be believed because the fixer said so."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from bot.errors import UserError
from bot.investigate import Investigation
from facts import ProbeResult
from fixes.request import FixRequest

log = logging.getLogger(__name__)

Look = Callable[[FixRequest], Awaitable[tuple[str, str]]]


def second_look(investigate: Callable[..., Awaitable[Investigation]]) -> Look:
    """A look at a verified request: verdict (cause | healthy | unknown) and one sentence. It never raises."""

    async def look(request: FixRequest) -> tuple[str, str]:
        done = request.status.message
        if not request.spec.question:
            return "unknown", f"{done} Which question it came from is not known, so it was not asked again."
        try:
            investigation = await investigate(request.spec.question.split(), asked_by="second look")
        except UserError as error:
            return "unknown", f"{done} Asked again, but: {error.sentence}"
        except Exception:
            log.exception("the second look at %s broke", request.name)
            return "unknown", f"{done} Asked again, but something in me broke; the log has it under {request.name}."
        return investigation.diagnosis.verdict, _sentence(done, investigation)

    return look


def _sentence(done: str, investigation: Investigation) -> str:
    diagnosis = investigation.diagnosis
    sent, answered = _probes(diagnosis.facts)
    probes = f"{answered} of {sent} probes answer" if sent else "no probe was sent"
    if diagnosis.verdict == "healthy":
        return f"verified: {done.rstrip('.')}; {probes}. {diagnosis.summary}".rstrip()
    if diagnosis.verdict == "cause" and diagnosis.causes:
        cause = diagnosis.causes[0]
        return f"{done} But {investigation.asked} is still broken ({probes}): {cause.title}. {cause.text}"
    return f"{done} Whether {investigation.asked} works now cannot be said ({probes}). {diagnosis.summary}".rstrip()


def _probes(facts: Sequence[Any]) -> tuple[int, int]:
    results = [fact for fact in facts if isinstance(fact, ProbeResult)]
    return sum(result.sent for result in results), sum(result.answered for result in results)
