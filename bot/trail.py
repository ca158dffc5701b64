"""The audit trail and single requests in words, for Slack and terminals; without it only kubectl would have them."""

from __future__ import annotations

import asyncio
import difflib
import re
from collections.abc import Sequence

import msgspec

from bot.approvals import listing, meant, outcome
from bot.errors import UserError
from bot.reply.fix_words import words_of
from fixes.audit import Audit, Line, exported, told, verify
from fixes.limits import Switch
from fixes.request import IN_WORDS, NAME, FixRequest
from fixes.store import FixStore, StoreError

WRITTEN_IN_S = 2.0
SHOWN = 30  # records in one answer
LONGEST = 10_000  # characters of one answer in Slack
HEAD = re.compile(r"sha256:[0-9a-f]{64}")
AUDIT_USAGE = "audit [fx-NAME] | audit verify [sha256:HEAD] | audit export [fx-NAME]"
FIXES_USAGE = "fixes | fixes show fx-NAME | fixes now fx-NAME | fixes off [REASON] | fixes on"


def fixes_said(words: Sequence[str]) -> tuple[str, str]:
    """("", "") for the list, ("show" | "now", name), ("off" | "on", reason). Raises UserError with what was meant."""
    first, rest = (words[0].lower() if words else ""), list(words[1:])
    if first in ("", "off", "on"):
        return first, " ".join(rest)
    if first in ("show", "now") and len(rest) == 1 and (name := meant(rest[0])):
        return first, name
    if first not in ("show", "now") and len(words) == 1 and (name := meant(first)):
        raise UserError(f"Did you mean `fixes show {name}`?")
    raise _not_understood("fixes", first, rest, ("off", "on", "show", "now"), FIXES_USAGE)


def audit_said(words: Sequence[str]) -> tuple[str, str]:
    """("", "") for all records, ("", request), ("verify", head) or ("export", request). Raises UserError with what was
    meant. request: what is no name is left as it is, since of forged names there are records, too."""
    first, rest = (words[0].lower() if words else ""), list(words[1:])
    about = (meant(rest[0]) or rest[0]) if rest else ""
    if first == "verify" and len(rest) <= 1:
        head = rest[0].lower() if rest else ""
        if head and not HEAD.fullmatch(head):
            raise UserError(f"{short(head, 40)!r} is no head of the trail; they look like sha256: and 64 digits.")
        return first, head
    if first == "export" and len(rest) <= 1:
        return first, about
    if len(words) <= 1 and not difflib.get_close_matches(first, ("verify", "export"), n=1, cutoff=0.7):
        return "", meant(first) or first
    raise _not_understood("audit", first, rest, ("verify", "export"), AUDIT_USAGE)


def _not_understood(word: str, first: str, rest: Sequence[str], known: Sequence[str], usage: str) -> UserError:
    near = difflib.get_close_matches(first, known, n=1, cutoff=0.6)
    if near and near[0] != first:
        return UserError(f"Did you mean `{' '.join([word, near[0], *rest])}`? The words are: {usage}.")
    return UserError(f"The words are: {usage}.")


def short(text: str, most: int = LONGEST, rest: str = "") -> str:
    """Whole lines as far as they fit, and `rest`, which says where the others are."""
    if len(text) <= most:
        return text
    kept: list[str] = []
    for line in text.splitlines():
        if sum(len(one) + 1 for one in kept) + len(line) > most - len(rest):
            break
        kept.append(line)
    return "\n".join([*kept, rest]) if kept else text[: most - len(rest) - 1] + "…" + rest


async def audit(store: FixStore, words: Sequence[str], *, jsonl: bool = False, shown: int = SHOWN) -> tuple[bool, str]:
    """What `audit WORDS` answers, and whether it is good news: False where the trail is broken.

    shown: how many of the newest records are told, 0 for all. Raises StoreError, and UserError for other words.
    """
    trail = Audit(store, "reader")
    word, about = audit_said(words)
    if word == "verify":
        requests = await store.all()
        lines = await trail.read()
        wrong = verify(lines, requests, about)
        if (
            wrong
        ):  # a step is written down right after it was taken: of a step that was just taken, it is looked for twice
            await asyncio.sleep(WRITTEN_IN_S)
            lines = await trail.read()
            wrong = verify(lines, requests, about)
        return not wrong, "\n".join(wrong) if wrong else _whole(lines)
    lines = await trail.read(about)
    if jsonl or word == "export":
        return True, "\n".join(map(exported, lines))
    if not lines and about and not NAME.fullmatch(about):
        raise UserError(f"There is no record of {short(about, 40)!r}. The words are: {AUDIT_USAGE}.")
    if not lines:
        return True, f"There is no record of {about}." if about else "The audit trail is empty."
    left = len(lines) - shown if shown else 0
    return True, "\n".join([*([f"… {left} older ones"] if left > 0 else []), *map(told, lines[-shown:])])


async def fixes(store: FixStore) -> str:
    """All requests, and first of all whether fixes are off. Raises StoreError."""

    async def switch() -> str:
        try:
            why = (await Switch(store).read()).off()
            return f"Now {why}.\n" if why else ""
        except StoreError as error:  # who may read the requests need not be let read the switch
            return f"{error.sentence}\n"

    said, requests = await asyncio.gather(switch(), store.all())
    return said + listing(requests)


def request(one: FixRequest) -> str:
    """All of a request: everything that is on its card, what was asked, what it rests on, what happened to it."""
    spec, words = one.spec, words_of(one.spec)
    evidence = [
        f"  {item.id}  {msgspec.json.encode(item.fact, order='deterministic').decode()}" for item in spec.evidence
    ]
    rows = [
        ("", f"{one.name}  {words.title}"),
        ("is", outcome(one)),
        ("kind", spec.kind),
        ("node", spec.node),
        ("cluster", spec.cluster),
        *(("with", f"{name}={value}") for name, value in sorted(spec.arguments.items())),
        ("blast radius", words.blast_radius),
        ("undo", words.undo),
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
