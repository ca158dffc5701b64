"""Keeps every card in Slack true to its FixRequest; without it a button would outlive its decision."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

from bot.approvals import Approvals, GroupsUnknown
from bot.errors import UserError
from bot.language import ENGLISH, Language
from bot.reply.block_kit import Message, escape, of_cluster
from bot.reply.fix_card import Deciding, fix_card
from bot.reply.fix_words import words_of
from bot.second_look import Look
from bot.slack import Slack
from facts import say
from fixes.approvers import Approvers
from fixes.audit import PUBLISHED, Record
from fixes.request import (
    CAPTURE,
    WAITING,
    WRITES,
    Card,
    FixRequest,
    Phase,
    Refused,
    SecondLook,
    Waits,
    document,
    expired,
    moment,
    stamp,
)
from fixes.store import FixStore, Seen, StoreError

log = logging.getLogger(__name__)

MOVER_S = 1.0  # whoever moved a request writes that down; this is for what was left out
AGAIN_S = (2.0, 10.0, 60.0, 300.0, 900.0)  # after the client's own retries, and only until it is clear: never
READ_S = 3.0  # a cluster that says nothing must not keep others from drawing, and who clicked from being told
AT_ONCE_S = 0.25  # a click that is decided within this needs no drawing of its own
REPAINT_S = 200.0  # a watch ends after 240 s, and what it lists then may have been painted over by a bot that died
ASKED_AGAIN_S = 60.0  # as long as Slack's answers are kept
UNKNOWN_MOST = 2  # times in a row
RECENT = timedelta(hours=24)  # older ends were drawn long ago
JUST_ENDED = timedelta(minutes=10)

T = TypeVar("T")
Shows = tuple[str, str, bool, bool, Waits | None]


class Cards:
    """Draws cards from the custom resources: when one changes, and all recent ones after a start."""

    def __init__(
        self,
        slack: Slack,
        store: FixStore,
        approvers: Approvers,
        look: Look,
        approvals: Approvals,
        language: Language = ENGLISH,
        *,
        cluster: str = "",
    ) -> None:
        self._slack = slack
        self._store = store
        self._approvers = approvers
        self._look = look
        self._language = language
        self._cluster = cluster
        self.saw: Callable[[Seen, FixRequest], None] = lambda *_: None  # is told all that the watch tells
        self._drawn: dict[str, tuple[Shows, float]] = {}  # name -> what the card shows (_shows), since when
        self._known: dict[str, FixRequest] = {}  # those that are open, as they were told of last
        self._answers: dict[str, str] = {}  # name -> URL of the answer that asked for it
        self._deciding: defaultdict[str, list[Deciding]] = defaultdict(list)  # name -> clicks that are being decided
        self._painted: Counter[str] = Counter()  # name -> how often a click was painted over the card, without its lock
        self._drawing: dict[str, asyncio.Lock] = {}
        self._timers: dict[str, asyncio.Task[None]] = {}
        self._looks: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, int] = {}  # name -> drawings of it that Slack did not take, one after the other
        self._background: set[asyncio.Task[None]] = set()
        self._catching_up = asyncio.Lock()
        self._approvals = approvals
        self._audit = approvals.audit
        self._approved: dict[str, asyncio.Task[None]] = {}  # those that wait for their fixer
        self._written: dict[str, int] = {}  # name -> events of its history that are in the audit trail
        self._writing: dict[str, asyncio.Task[None]] = {}

    async def _keep_true(self, request: FixRequest) -> None:
        try:
            await self.draw(request)
            self._look_again(request)
        except Exception:  # one strange request must not stop the drawing of all others
            log.exception("the card of %s cannot be drawn", request.name)

    def message(self, request: FixRequest) -> Message:
        """The card of the request as it is."""
        return fix_card(
            document(request, self._store.namespace),
            self._store.now(),
            approvers=sorted(
                {entry.who for entry in self._approvers.entries_for(request.spec.kind) if not entry.kubernetes}
            ),
            four_eyes=not self._approvers.allow_self,
            answer=self._answers.get(request.name, ""),
            deciding=next(reversed(self._deciding.get(request.name, ())), None),
            cluster=self._cluster,
            language=self._language,
        )

    def _plain(self, text: str) -> Message:
        """A note of ours, markup already."""
        return Message(text=of_cluster(text, self._cluster), blocks=[])

    def _title(self, request: FixRequest) -> str:
        return escape(self._language(words_of(request.spec).title))

    async def put_up(self, request: FixRequest, channel: str, thread: str) -> None:
        """Show the request in this thread, from now on as it is; or the way to its card, when it got one meanwhile.

        The message is posted without buttons and becomes the card once the cluster knows its place: of who dies in
        between nothing stays that could be clicked. Raises UserError.
        """
        text = say("*{title}*: `{name}`", title=self._title(request), name=request.name)
        ts = await self._slack.post(channel, self._plain(self._language(text)), thread)
        card = Card(channel=channel, thread=thread, ts=ts)
        try:
            request = await self._store.place(request.name, card)
        except StoreError as error:
            bare = say(
                "*{title}* has no card, so it is decided in words: {command}. {why}",
                title=self._title(request),
                command=f"`/calico approve {request.name}`",
                why=escape(error.sentence),
            )
            await self._slack.update(channel, ts, self._plain(self._language(bare)))
            return
        if request.status.slack == card:
            await self.draw(request)
        else:
            await self._slack.update(channel, ts, await self.elsewhere(request))

    async def elsewhere(self, request: FixRequest) -> Message:
        """The way to the card, where it hangs already: one request has one card."""
        shown = request.status.slack
        link = await self._slack.permalink(shown.channel, shown.ts) if shown else ""
        where = f"<{link}|{self._language(say('its card'))}>" if link else say("its card in an earlier thread")
        text = say(
            "*{title}* was asked for already as `{name}`: see {where}.",
            title=self._title(request),
            name=request.name,
            where=where,
        )
        return self._plain(self._language(text))

    async def while_deciding(self, name: str, card_ts: str, deciding: Deciding, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives, which decides on a click on this card. Unless that is quick the card says so meanwhile and
        has no buttons. Afterwards the caller draws the request as it is; the buttons are back when `work` cannot tell.
        """
        decision = asyncio.ensure_future(work)
        try:
            await asyncio.wait({decision}, timeout=AT_ONCE_S)
            known = self._known.get(name)
            card = known.status.slack if known else None
            if known and card and card.ts == card_ts and known.status.phase is Phase.PENDING and not decision.done():
                self._deciding[name].append(deciding)
                self._painted[name] += 1
                try:
                    # Without the lock: who has it may be waiting for the cluster.
                    await self._slack.update(card.channel, card.ts, self.message(known))
                    await asyncio.wait({decision})
                except UserError as error:
                    log.warning("the card of %s keeps its buttons while it is decided: %s", name, error.sentence)
                finally:
                    self._deciding[name].remove(deciding)
                    self._painted[name] += 1
                    self._drawn.pop(name, None)  # whatever is drawn next comes after this
            return await decision
        except StoreError:
            if known := self._known.get(name):
                await self.draw(known, read=False)
            raise
        finally:
            decision.cancel()

    async def draw(self, request: FixRequest, *, read: bool = True) -> None:
        """Make the card show the request as it is now; nothing when it already does. Never raises for Slack.

        read: not where the cluster was asked in vain just now.
        """
        if request.status.slack is None:
            return
        async with self._drawing.setdefault(request.name, asyncio.Lock()):
            # Read inside the lock: of two drawings at once the later one must not be the older truth.
            if read:
                with contextlib.suppress(StoreError, TimeoutError):
                    async with asyncio.timeout(READ_S):
                        request = await self._store.get(request.name)
            card = request.status.slack
            if card is None:
                return
            shows = _shows(request, card)
            if request.name in self._drawn and self._drawn[request.name][0] == shows:
                return
            if request.spec.investigation and not self._answers.get(request.name):
                self._answers[request.name] = await self._slack.permalink(card.channel, card.thread)
            try:
                painted, deciding = self._painted[request.name], self._deciding.get(request.name)
                await self._slack.update(card.channel, card.ts, self.message(request))
                if not deciding and painted == self._painted[request.name]:  # else whoever decides draws it anew
                    self._drawn[request.name] = shows, time.monotonic()
                self._failed.pop(request.name, None)
            except UserError as error:
                log.warning("the card of %s is not up to date: %s", request.name, error.sentence)
                self._draw_again(request)

    def _draw_again(self, request: FixRequest) -> None:
        """After its end nothing else would make a card true that Slack did not take."""
        failed = self._failed.get(request.name, 0)
        if failed < len(AGAIN_S):
            self._failed[request.name] = failed + 1
            self._in_background(self._drawn_again(request, AGAIN_S[failed]))

    async def _drawn_again(self, request: FixRequest, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        await self.draw(request)

    async def _catch_up(self, request: FixRequest) -> None:
        """After a start all recent cards are drawn; what goes on meanwhile must not wait until Slack has taken them."""
        async with self._catching_up:
            await self._keep_true(request)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async for seen, request in self._store.watch():
                self.saw(seen, request)
                if seen == "deleted":
                    self._forget(request.name)
                elif self._matters(request):
                    self._know(request, listed=seen == "listed")
                    self._write_down(request)
                    self._expire_in_time(request)
                    self._ask_again(request)
                    if request.status.slack is None:
                        continue
                    if seen == "listed" and not request.open:
                        self._in_background(self._catch_up(request))
                    else:
                        await self._keep_true(request)
        finally:
            works = (self._timers, self._looks, self._writing, self._approved)
            for task in (*(task for work in works for task in work.values()), *self._background):
                task.cancel()

    def _matters(self, request: FixRequest) -> bool:
        return request.name in self._drawn or self._ended_within(request, RECENT)

    def _know(self, request: FixRequest, *, listed: bool) -> None:
        if request.open:
            self._known[request.name] = request
        else:
            self._known.pop(request.name, None)
        _, since = self._drawn.get(request.name, (None, 0.0))
        if listed and time.monotonic() - since > REPAINT_S and self._ended_within(request, JUST_ENDED):
            self._drawn.pop(request.name, None)

    def _ended_within(self, request: FixRequest, time_ago: timedelta) -> bool:
        """Whether it has not ended, or only just."""
        with contextlib.suppress(ValueError, TypeError):
            return request.open or self._store.now() - moment(request.status.finished_at) < time_ago
        return False

    def _forget(self, name: str) -> None:
        self._known.pop(name, None)
        self._answers.pop(name, None)
        self._painted.pop(name, None)
        self._drawn.pop(name, None)
        self._drawing.pop(name, None)
        self._written.pop(name, None)
        self._failed.pop(name, None)
        for tasks in (self._timers, self._approved):
            if task := tasks.pop(name, None):
                task.cancel()

    def _expire_in_time(self, request: FixRequest) -> None:
        """Write down the end of a request when its time is over, for its card's sake; deciding never relies on it."""
        if request.status.phase not in WAITING:
            if timer := self._timers.pop(request.name, None):
                timer.cancel()
        elif request.name not in self._timers:
            self._timers[request.name] = asyncio.ensure_future(self._expire(request))

    async def _expire(self, request: FixRequest) -> None:
        while not expired(request.spec, self._store.now()):
            left = moment(request.spec.expires_at) - self._store.now()
            await asyncio.sleep(max(0.05, left.total_seconds()))
        try:
            await self._store.transition(request.name, Phase.EXPIRED)
        except Refused:
            pass  # decided in the last moment
        except StoreError as error:
            log.warning("%s has expired, which cannot be written: %s", request.name, error.sentence)
        finally:
            self._timers.pop(request.name, None)

    def _ask_again(self, request: FixRequest) -> None:
        """While it waits to be done: a fixer cannot ask Slack who is in a group still."""
        if request.status.phase is not Phase.APPROVED:
            if asking := self._approved.pop(request.name, None):
                asking.cancel()
        elif request.name not in self._approved:
            self._approved[request.name] = asyncio.ensure_future(self._asked_again(request))

    async def _asked_again(self, request: FixRequest) -> None:
        why, unknown = "", 0
        while not why:
            await asyncio.sleep(ASKED_AGAIN_S)
            try:
                why, unknown = await self._approvals.withdrawn(request), 0
            except GroupsUnknown as error:
                unknown += 1
                log.warning("whether %s is approved still: %s", request.name, error)
                if unknown == UNKNOWN_MOST:
                    why = f"Slack does not say whether who approved it still may ({error}). Nothing was changed."
        for delay in AGAIN_S:
            try:
                await self._store.transition(request.name, Phase.CANCELLED, message=why)
                return
            except Refused:
                return  # done meanwhile, or another bot was first
            except StoreError as error:
                log.warning("%s is to be cancelled, which cannot be written: %s", request.name, error.sentence)
                await asyncio.sleep(delay)

    def _write_down(self, request: FixRequest) -> None:
        """Whoever moved it writes that into the audit trail; what died before it did, or is none of ours, does not."""
        if self._written.get(request.name) == len(request.status.history) or request.name in self._writing:
            return
        task = asyncio.ensure_future(self._written_down(request))
        self._writing[request.name] = task
        task.add_done_callback(lambda _: self._writing.pop(request.name, None))

    async def _written_down(self, request: FixRequest) -> None:
        try:
            await asyncio.sleep(random.uniform(0.5, 1.0) * MOVER_S)  # replicas need not all write at once
            while self._written.get(request.name) != len(request.status.history):
                await self._audit.follow(request)
                self._written[request.name] = len(request.status.history)
                request = await self._store.get(request.name)
            if not request.open and request.status.slack is not None:
                await self._publish(request, request.status.slack)
        except (StoreError, UserError) as error:
            log.warning("the audit trail of %s: %s", request.name, error.sentence)

    async def _publish(self, request: FixRequest, card: Card) -> None:
        """Where the trail stood at the end of this request, in its thread: who rewrites the trail rewrites not that."""
        record = Record(
            event=PUBLISHED,
            key=f"{request.name}/published",
            request=request.name,
            digest=request.spec.digest,
            place=f"{card.channel}/{card.thread}",
        )
        if line := await self._audit.append(record):
            head = say("Audit trail: {record} {hash}", record=line.name, hash=line.spec["hash"])
            await self._slack.post(card.channel, self._plain(escape(self._language(head))), card.thread)

    def _look_again(self, request: FixRequest) -> None:
        if (
            request.status.phase is Phase.VERIFIED
            and request.spec.kind not in (CAPTURE, *WRITES)  # there is no question to ask again
            and request.status.second_look is None
            and request.name not in self._looks
        ):
            task = asyncio.ensure_future(self._second_look(request))
            self._looks[request.name] = task
            task.add_done_callback(lambda _: self._looks.pop(request.name, None))

    async def _second_look(self, request: FixRequest) -> None:
        """The entry is right; whether the pods reach each other now is asked again, in full."""
        verdict, text = await self._look(request)
        look = SecondLook(verdict=verdict, text=text, at=stamp(self._store.now()))
        card = request.status.slack
        try:
            request = await self._store.note_second_look(request.name, look)
            mark = ":white_check_mark:" if verdict == "healthy" else ":x:" if verdict == "cause" else ":grey_question:"
            if card is not None:
                message = self._plain(f"{mark} {escape(text)}")
                await self._slack.post(card.channel, message, card.thread)
            await self.draw(request)
        except Refused:
            log.info("%s was looked at again by another bot", request.name)
        except (StoreError, UserError) as error:
            log.warning("the second look at %s is not told: %s", request.name, error.sentence)


def _shows(request: FixRequest, card: Card) -> Shows:
    """What tells two drawings of a request apart."""
    status = request.status
    return card.ts, str(status.phase), status.second_look is not None, bool(status.preview), status.waits
