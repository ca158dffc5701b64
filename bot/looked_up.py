"""What `fixes` and `audit` answer in Slack, with the file and the card that go with it there; a terminal has the text
of `bot.trail` alone."""

from __future__ import annotations

from collections.abc import Sequence

from bot import speech, trail
from bot.decisions import REASON_MAX
from bot.fix_requests import at_once
from bot.language import Language
from bot.place import Place
from bot.reply.block_kit import escape, of_cluster
from bot.served import Desk
from bot.slack import Slack, escape_but_mentions
from facts import say
from fixes.request import Person


async def looked_up(said: speech.Said, place: Place, desk: Desk, slack: Slack, language: Language) -> str:
    """What `fixes` and `audit` answer, escaped. Raises StoreError, UserError."""
    whole = f"… all of it in a terminal: calico-why {' '.join([said.word, *said.rest])}"
    if said.word == "audit":
        if trail.audit_said(said.rest)[0] == "export":
            return await _exported(said.rest, place, desk, slack, language)
        return escape(trail.short((await trail.audit(desk.store, said.rest))[1], rest=whole))
    word, about = trail.fixes_said(said.rest)
    if word in ("off", "on"):
        person, reason = Person(id=place.user, via="slack"), about[:REASON_MAX]
        turned = await desk.approvals.turn(word == "on", person, reason)
        return escape_but_mentions(language(turned.sentence))
    if word == "now":
        request = await at_once(about, desk.store, Person(id=place.user, via="slack"))
        waiting = (await desk.store.get(about)).status.slack
        channel, thread = (waiting.channel, waiting.thread) if waiting else (place.channel, place.thread)
        await desk.cards.put_up(request, channel, thread)
        asked = say(
            "{name} asks for the same without the second look, and {waiting} still waits.",
            name=request.name,
            waiting=about,
        )
        return escape(language(asked))
    if word == "show":
        return escape(trail.short(trail.request(await desk.store.get(about)), rest=whole))
    return escape(trail.short(await trail.fixes(desk.store), rest=whole))


async def _exported(words: Sequence[str], place: Place, desk: Desk, slack: Slack, language: Language) -> str:
    """The records as a file in the channel; what its reader is told beside it. Raises StoreError, UserError."""
    _, lines = await trail.audit(desk.store, words)
    if not lines:
        return language(say("There is no record to export."))
    await slack.upload(
        f"{lines}\n".encode(),
        name="audit.jsonl",
        title=of_cluster("audit trail", desk.name),  # it stands in the channel, and what is told beside it not
        channel=place.channel,
        thread=place.thread,
    )
    return language(say("The records are in the file audit.jsonl, a line of JSON each."))


def request_of(said: speech.Said) -> str:
    """Which request `fixes` or `audit` is asked about, "" for none. Raises UserError."""
    word, about = trail.audit_said(said.rest) if said.word == "audit" else trail.fixes_said(said.rest)
    return about if word in ("", "show", "now", "export") else ""
