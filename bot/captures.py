"""`capture` in Slack: who may, what they see meanwhile, and the file in the thread; without it packets would be handed
to whoever is in the channel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple

from bot.approvals import Approvals, GroupsUnknown
from bot.approved_captures import CapturePlace, Outcome, capture_spec, scope
from bot.capture import Captured, Plan, Take, Wanted, headline, notes, table, understand
from bot.cards import Cards
from bot.conversation import Ticker
from bot.errors import UserError
from bot.in_slack import Under
from bot.language import ENGLISH, Language
from bot.place import place_of
from bot.reply import blocks
from bot.reply.block_kit import Message, escape, of_cluster
from bot.slack import NotInChannel, Slack, cannot_be_heard, escape_but_mentions
from facts import say
from fixes.request import CAPTURE, Person
from fixes.store import FixStore, StoreError

log = logging.getLogger(__name__)

STOPPED = say("I was stopped in the middle of it, and what was captured is gone. Please ask again.")
BROKEN = say("Something in me broke, and the log has it. Nothing was captured.")

Insist = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]  # as Slack.insist


class Capturing(NamedTuple):
    """How the bot captures."""

    take: Take
    plan: Plan
    # "headers": everybody headers, whole packets approvers or with their approval; "approval": everybody, each with the
    # approval of another person; "approvers": nobody else; "off"
    allowed: str


class Captures:
    """Captures packets for people in Slack. The message that says so becomes the summary; the file is in its thread."""

    def __init__(
        self,
        slack: Slack,
        approvals: Approvals,
        store: FixStore,
        cards: Cards,
        capturing: Capturing | None,
        *,
        cluster: str,
        bot_name: str,
        language: Language = ENGLISH,
    ) -> None:
        """capturing: None where nothing is to be captured from Slack."""
        self._slack = slack
        self._approvals = approvals
        self._store = store
        self._cards = cards
        self._capturing = capturing
        self._cluster = cluster
        self._bot_name = bot_name
        self._language = language

    async def take(self, words: Sequence[str], under: Under) -> None:
        """Capture for who asks, or tell them alone why not. Raises UserError when Slack does not take what is said."""
        channel, user, thread = under.begun.channel, under.begun.user, under.begun.thread
        try:
            wanted = understand(words)
        except UserError as error:
            refusal = escape(error.sentence)
        else:
            judged = await self._judged(wanted, channel, user)
            refusal = escape_but_mentions(self._language(judged.refusal))
            if not refusal and self._capturing is not None:
                try:
                    if judged.to_be_approved:
                        await self._ask(wanted, self._capturing.plan, under)
                    else:
                        ts = await self._looking(wanted, under)
                        place = CapturePlace(channel=channel, thread=thread, message=ts, asked_by=user)
                        await self._made(wanted, self._capturing.take, place, self._slack.insist)
                except NotInChannel as error:
                    refusal = self._language(cannot_be_heard(error, self._bot_name))
        if refusal:
            await self._slack.whisper(of_cluster(refusal, self._cluster), place_of(under.begun))

    async def _judged(self, wanted: Wanted, channel: str, user: str) -> _Judged:
        """What is not known is a no."""
        allowed = self._capturing.allowed if self._capturing else "off"
        if allowed == "off":
            log.info("audit: capture %s by %s in %s: refused, switched off", wanted, user, channel)
            off = say(
                "Nothing is captured from Slack here (CALICO_WHY_SLACK_CAPTURE). Who holds the bot's certificate "
                "captures in a terminal: {command}",
                command=f"calico-why capture {wanted}",
            )
            return _Judged(refusal=off)
        entry = "everybody" if allowed == "headers" and not wanted.payload else ""
        if not entry and allowed != "approval":
            try:
                entry = await self._approvals.entry(Person(id=user, via="slack"), CAPTURE)
            except GroupsUnknown as unknown:
                log.info("audit: capture %s by %s in %s: refused, %s", wanted, user, channel, unknown)
                silent = say(
                    "Slack did not say who may capture ({why}), so nobody may for now. Try again later.", why=unknown
                )
                return _Judged(refusal=silent)
        if entry:
            log.info("audit: capture %s by %s in %s: allowed by %s", wanted, user, channel, entry)
            return _Judged()
        if allowed != "approvers" and self._approvals.anybody(CAPTURE):
            log.info("audit: capture %s by %s in %s: to be approved", wanted, user, channel)
            return _Judged(to_be_approved=True)
        log.info("audit: capture %s by %s in %s: refused, no approver", wanted, user, channel)
        refused = say(
            "You may not capture whole packets: {who_may} Headers you may: leave out --payload."
            if allowed == "headers"
            else "You may not capture: {who_may}",
            who_may=self._approvals.who_may("slack", CAPTURE),
        )
        return _Judged(refusal=refused)

    async def _looking(self, wanted: Wanted, under: Under) -> str:
        """ts of the message that says so."""
        begun = under.begun
        message = self._message(wanted, begun.user)(say("looking"))
        ts = await self._slack.insist(lambda: self._slack.post(begun.channel, message, begun.thread))
        await under.posted(ts, f"capture {wanted}")
        return ts

    async def _ask(self, wanted: Wanted, plan: Plan, under: Under) -> None:
        """A message that says what is asked for, and in its thread the card that decides."""
        channel, user, thread = under.begun.channel, under.begun.user, under.begun.thread
        message = self._message(wanted, user)
        ts = await self._looking(wanted, under)
        place = CapturePlace(channel=channel, thread=thread or ts, message=ts, asked_by=user)
        try:
            planned = await plan(wanted)
            spec = capture_spec(wanted, planned, place, self._cluster, self._store.now())
            request = await self._store.create(spec)
            request = await self._store.note_preview(request.name, scope(planned, place))
            waits = say("A second person has to approve this: {name}, in this thread.", name=request.name)
            await self._slack.insist(lambda: self._slack.update(channel, ts, message(notes=[self._language(waits)])))
            await self._slack.insist(lambda: self._cards.put_up(request, channel, place.thread))
        except (UserError, StoreError) as error:
            await self._slack.update(channel, ts, message(notes=[error.sentence]))
        except Exception:
            log.exception("capture %s could not be asked for", wanted)
            await self._slack.update(channel, ts, message(notes=[self._language(BROKEN)]))

    async def make(self, wanted: Wanted, take: Take, place: CapturePlace) -> Outcome:
        """Capture what was approved, and tell of it in that place. Raises UserError when Slack does not take what is
        said."""
        message = self._message(wanted, place.asked_by)
        looking = message(say("looking"))
        if place.message:
            await self._slack.update(place.channel, place.message, looking)
        else:
            ts = await self._slack.insist(lambda: self._slack.post(place.channel, looking, place.thread))
            place = place._replace(message=ts)
        try:
            return await self._made(wanted, take, place, lambda show: show())
        except asyncio.CancelledError:
            await self._slack.hint(place.channel, place.message, message(notes=[self._language(STOPPED)]))
            raise

    async def _made(self, wanted: Wanted, take: Take, place: CapturePlace, insist: Insist) -> Outcome:
        """insist: how hard Slack is to be tried with what came of it."""
        message = self._message(wanted, place.asked_by)
        channel, ts = place.channel, place.message

        async def show(shown: Message) -> None:
            await insist(partial(self._slack.update, channel, ts, shown))

        try:
            async with Ticker(lambda text: self._slack.hint(channel, ts, message(text))) as tick:
                captured = await take(wanted, progress=tick.tell)
        except UserError as error:
            await show(message(notes=[error.sentence]))
            return Outcome(False, error.sentence)
        except Exception:
            log.exception("capture %s could not be made", wanted)
            await show(message(notes=[self._language(BROKEN)]))
            return Outcome(False, ENGLISH(BROKEN))
        told = notes(captured, self._language)
        head, rows = headline(captured, self._language), table(captured, self._language)
        await show(message(headline=head, table=rows, notes=told))
        # Now that Slack takes something: what it does not take of a file, it will not take of it later either.
        lost = await self._uploaded(captured, channel, place.thread or ts) if captured.packets else ""
        if lost:
            await show(message(headline=head, table=rows, notes=[*told, self._language(lost)]))
        return Outcome(False, ENGLISH(lost)) if lost else Outcome(True, _outcome(captured))

    async def broken_off(self, wanted: Wanted, place: CapturePlace) -> None:
        """Another process began this one and told nothing more. Never raises: what matters is on the card."""
        if not place.message:
            return
        try:
            message = self._message(wanted, place.asked_by)(notes=[self._language(STOPPED)])
            await self._slack.update(place.channel, place.message, message)
        except UserError as error:
            log.warning("capture %s broke off, which could not be told: %s", wanted, error.sentence)

    def _message(self, wanted: Wanted, user: str) -> Callable[..., Message]:
        return partial(blocks.capture, str(wanted), asked_by=user, cluster=self._cluster, language=self._language)

    async def _uploaded(self, captured: Captured, channel: str, thread: str) -> str:
        """The file goes to the thread; why it could not, to be told."""
        try:
            await self._slack.upload(
                captured.file, name=captured.name, title=f"capture {captured.wanted}", channel=channel, thread=thread
            )
        except UserError as error:
            return say(
                "The file could not be uploaded: {why} In a terminal it is written to disk: {command}",
                why=error.sentence,
                command=f"calico-why capture {captured.wanted}",
            )
        return ""


class _Judged(NamedTuple):
    """Whether somebody may have a capture: at once, if neither of these. refusal: why not at all, as `say` puts it."""

    refusal: str = ""
    to_be_approved: bool = False


def _outcome(captured: Captured) -> str:
    """What the request's end says."""
    file = f"{captured.name} is in the thread" if captured.packets else "so there is no file"
    missing = "" if captured.complete else " Not every place could be looked at."
    return f"{headline(captured, ENGLISH)}, {file}.{missing}"
