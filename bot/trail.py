"""The audit trail and single requests in words, for Slack and terminals; without it only kubectl would have them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from bot.approvals import listing, outcome
from bot.errors import UserError
from fixes.audit import Audit, Line, exported, told, verify
from fixes.limits import Switch
from fixes.request import IN_WORDS, FixRequest
from fixes.store import FixStore, StoreError

WRITTEN_IN_S = 2.0
SHOWN = 30  # records in one answer
USAGE = "audit [fx-NAME] | audit verify [sha256:HEAD]"


async def audit(store: FixStore, words: Sequence[str], *, jsonl: bool = False, shown: int = SHOWN) -> tuple[bool, str]:
    """What `audit WORDS` answers, and whether it is good news: False where the trail is broken.

    shown: how many of the newest records are told, 0 for all. Raises StoreError, and UserError for other words.
    """
    trail = Audit(store, "reader")
    if words[:1] == ["verify"] and len(words) <= 2:
        head = words[1] if len(words) == 2 else ""
        requests = await store.all()
        lines = await trail.read()
        wrong = verify(lines, requests, head)
        if (
            wrong
        ):  # a step is written down right after it was taken: of a step that was just taken, it is looked for twice
            await asyncio.sleep(WRITTEN_IN_S)
            lines = await trail.read()
            wrong = verify(lines, requests, head)
        return not wrong, "\n".join(wrong) if wrong else _whole(lines)
    if len(words) > 1:
        raise UserError(f"The words are: {USAGE}.")
    lines = await trail.read(words[0] if words else "")
    if jsonl:
        return True, "\n".join(map(exported, lines))
    if not lines:
        return True, f"There is no record of {words[0]}." if words else "The audit trail is empty."
    left = len(lines) - shown if shown else 0
    return True, "\n".join([*([f"… {left} older ones"] if left > 0 else []), *map(told, lines[-shown:])])


async def fixes(store: FixStore) -> str:
    """All requests, and first of all whether fixes are off. Raises StoreError."""
    try:
        why = (await Switch(store).read()).off()
        switch = f"Now {why}.\n" if why else ""
    except StoreError as error:  # who may read the requests need not be let read the switch
        switch = f"{error.sentence}\n"
    return switch + listing(await store.all())


def request(one: FixRequest) -> str:
    """All of a request: everything that is on its card, what was asked, what it rests on, what happened to it."""
    spec = one.spec
    evidence = [
        f"  {item.id}  {msgspec.json.encode(item.fact, order='deterministic').decode()}" for item in spec.evidence
    ]
    rows = [
        ("", f"{one.name}  {spec.title}"),
        ("is", outcome(one)),
        ("kind", spec.kind),
        ("node", spec.node),
        ("cluster", spec.cluster),
        *(("with", f"{name}={value}") for name, value in sorted(spec.arguments.items())),
        ("blast radius", spec.blast_radius),
        ("undo", spec.undo),
        (
            "asked by",
            f"{spec.requested_by.name or spec.requested_by.id} ({spec.requested_by.via}) at {spec.requested_at}",
        ),
        ("question", spec.question),
        ("investigation", spec.investigation),
        ("valid until", spec.expires_at),
        ("digest", spec.digest),
    ]
    lines = [f"{label + ':':<15}{text}" if label else text for label, text in rows if text]
    lines += ["writes:", *(f"  {line}" for line in one.status.preview)] if one.status.preview else []
    lines += ["evidence:", *evidence]
    for event in one.status.history:
        by = f" by {event.by.name or event.by.id} ({event.by.entry or event.by.via})" if event.by else ""
        said = f": {event.message}" if event.message else ""
        lines.append(f"{event.at}  {IN_WORDS[event.phase]}{by}{said}")
    if look := one.status.second_look:
        lines.append(f"{look.at}  second look: {look.text}")
    return "\n".join(lines)


def _whole(lines: Sequence[Line]) -> str:
    if not lines:
        return "The audit trail is empty, and nothing is missing in it."
    last = lines[-1]
    records = "1 record" if len(lines) == 1 else f"{len(lines)} records"
    return f"The audit trail is whole: {records}, its head is {last.name} {last.spec['hash']}."
