"""What the bot has taken, on its way to its answer: on disk first, in its turn, by one of the replicas; without it a
restart would leave somebody waiting for ever, and two replicas would answer twice."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import msgspec

from bot import speech
from bot.decisions import Decisions
from bot.errors import UserError
from bot.in_slack import WORDS, Under
from bot.journal import Begun, Click, Job, Journal, Kept
from bot.language import Language
from bot.line import Lines, Turn
from bot.looked_up import looked_up, request_of
from bot.place import place_of
from bot.reply.block_kit import escape, of_cluster
from bot.served import Desk, Desks
from bot.slack import Slack, SlackGone
from bot.tracing import span
from facts import say
from facts.logs import about
from fixes.claims import Claims
from fixes.store import StoreError

log = logging.getLogger(__name__)

A = TypeVar("A")
T = TypeVar("T")

DRAIN_S = 10.0
TOLD_S = 8.0
KEEPERS = 8  # threads: of those that write at the same time the disk makes one write
FORGETS_EVERY_S = 600.0


class Work:
    """Questions, decisions and words that were taken. `going_on` has to be entered before anything is."""

    def __init__(
        self, slack: Slack, journal: Journal, desks: Desks, decisions: Decisions, lines: Lines, language: Language
    ) -> None:
        self._slack = slack
        self._journal = journal
        self._desks = desks
        self._decisions = decisions
        self._lines = lines
        self._language = language
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: set[asyncio.Task[None]] = set()  # whether other replicas answer

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncGenerator[None]:
        """Takes up what was accepted before a restart, and has what is under way end or be told of at the end."""
        with ThreadPoolExecutor(KEEPERS, "journal") as self._keepers:
            always = [_beside(desk.cards.run(), f"keeping the cards of {desk.name} true") for desk in self._desks]
            capturing = [_beside(desk.capture_what_is_approved(), f"captures of {desk.name}") for desk in self._desks]
            always += [_beside(desk.claims.know_itself(), f"the pod in {desk.name}") for desk in self._desks]
            always.append(_beside(self._forget(), "forgetting what is done"))
            try:
                for kept in await asyncio.to_thread(self._journal.unfinished):
                    self.spawn(self._resume(kept), kept.id)
                yield
            finally:
                for work in [*capturing, *self._looking]:
                    work.cancel()
                # What does not end in time is in the journal, and is answered after the next start.
                if self._tasks:
                    await asyncio.wait(self._tasks, timeout=DRAIN_S)
                for task in self._tasks:
                    task.cancel()
                # Each says that it was stopped, if Slack takes that soon.
                if telling := {*capturing, *self._tasks}:
                    await asyncio.wait(telling, timeout=TOLD_S)
                late = [*always, *self._looking, *telling]
                for work in late:
                    work.cancel()
                await asyncio.gather(*late, return_exceptions=True)

    async def _forget(self) -> None:
        """A bot may run for months."""
        while True:
            await asyncio.sleep(FORGETS_EVERY_S)
            try:
                await asyncio.to_thread(self._journal.forget)
            except OSError as error:
                log.warning("what is done is not forgotten: %s", error)

    # -- taken ------------------------------------------------------------------------------------------------------

    async def accept(self, kept: Kept) -> bool | None:
        """True: on disk now. False: it had been accepted before. None: it cannot be kept, so no question or decision is
        accepted."""
        try:
            return await self._on_disk(self._journal.accept, kept)
        except OSError as error:
            log.error("%s cannot be kept: %s", kept.id, error)
            return None

    async def first(self, identity: str) -> bool:
        """Whether it was not heard before. Where the disk cannot tell it is answered: twice is better than never."""
        try:
            return await self._on_disk(self._journal.first, identity)
        except OSError as error:
            log.error("a second delivery of %s would not be known: %s", identity, error)
            return True

    async def _on_disk(self, keep: Callable[[A], T], what: A) -> T:
        """By threads that do nothing else: to be heard takes the disk, and not the end of somebody else's answer."""
        return await asyncio.get_running_loop().run_in_executor(self._keepers, keep, what)

    def spawn(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        """Goes on by itself, and is waited for at the end."""
        task = _beside(work, what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- by one of the replicas -------------------------------------------------------------------------------------

    async def once(self, kept: Kept, *, again: bool = False) -> None:
        """As `do`, by one of the replicas to which the event was delivered; the others see to it that it is done."""
        claims = self._nearest(kept.cluster, kept.channel).claims
        if await _done_here(claims, kept.id, partial(self.do, kept, again=again)):
            return
        kept = msgspec.structs.replace(kept, elsewhere=True)
        await self._note(kept)
        self._look_after(kept)

    async def told_once(self, identity: str, channel: str, work: Callable[[], Awaitable[None]]) -> None:
        """Work that is in no journal, since nobody waits for it, by one of the replicas."""
        await _done_here(self._nearest("", channel).claims, identity, work)

    def _look_after(self, kept: Kept) -> None:
        """Whether another replica answers it, also after a restart of this one."""
        looking = _beside(self._take_over(kept), f"whether {kept.id} is answered")
        self._looking.add(looking)
        looking.add_done_callback(self._looking.discard)

    async def _take_over(self, kept: Kept) -> None:
        """Where the replica that claimed it is no more."""
        claims = self._nearest(kept.cluster, kept.channel).claims
        if not await claims.left(kept.id):
            await asyncio.to_thread(self._journal.finish, kept)
            return
        log.warning("%s was left by another replica, and is answered here", kept.id)
        kept = msgspec.structs.replace(kept, elsewhere=False)
        await self._note(kept)
        self.spawn(self._taken_over(kept, claims), kept.id)

    async def _taken_over(self, kept: Kept, claims: Claims) -> None:
        await self.do(kept, again=True)
        await claims.answered(kept.id)

    async def _resume(self, kept: Kept) -> None:
        """What was accepted before a restart."""
        if kept.elsewhere:
            self._look_after(kept)
            return
        log.info("answering %s, accepted before the restart", kept.id)
        shown = kept.ts if isinstance(kept, Begun) else kept.told if isinstance(kept, Click) else kept.answer
        if kept.event and not shown:  # else it was claimed before that
            await self.once(kept, again=True)
            return
        await self.do(kept, again=True)
        if kept.event:
            await self._nearest(kept.cluster, kept.channel).claims.answered(kept.id)

    def _nearest(self, cluster: str, channel: str) -> Desk:
        """Where nobody serves it that is to be told once, too."""
        try:
            return self._desks.at(cluster, channel)
        except UserError:
            return self._desks.at("", "")

    async def _note(self, kept: Kept) -> None:
        """A disk that refuses keeps nobody from an answer."""
        try:
            await asyncio.to_thread(self._journal.update, kept)
        except OSError as error:
            log.warning("after a kill %s would not be known: %s", kept.id, error)

    # -- done -------------------------------------------------------------------------------------------------------

    async def do(self, kept: Kept, *, again: bool = False) -> None:
        """To its end. again: another process may have done any of it."""
        if isinstance(kept, Job):
            await self._answer_in_turn(kept, silent=again)
        elif isinstance(kept, Click):
            await self._decisions.carry_out(kept, again=again)
        elif again:
            await self._broken_off(kept)
        else:
            await self._say(kept)

    def turn(self, job: Job) -> tuple[Turn, str]:
        """Its place in line, which `answer` leaves, and what is said to who has to wait, "" where nobody has to."""
        turn = self._lines.join(job)
        if not turn.before:
            return turn, ""
        waits = say("I have your question. It is answered in its turn: {count} are before it.", count=turn.before)
        return turn, self._language(waits)

    async def _answer_in_turn(self, job: Job, *, silent: bool) -> None:
        """For what is acknowledged without words. silent: nobody is told how many are before."""
        turn, waits = self.turn(job)
        if waits and not silent:
            self.spawn(self._slack.whisper(waits, place_of(job)), "how many are before a question")
        await self.answer(job, turn)

    async def answer(self, job: Job, turn: Turn) -> None:
        """A question to its end. Raises UserError when Slack does not take it."""
        with about(question=job.id), span("question", id=job.id, cluster=job.cluster):
            try:
                desk = self._desks.at(job.cluster, job.channel)
            except UserError as error:  # it was served before a restart
                place = msgspec.structs.replace(place_of(job), thread=job.thread or job.answer)
                await self._slack.whisper(escape(self._language(error.sentence)), place)
                await asyncio.to_thread(self._journal.finish, job)
            else:
                await desk.answer(job, turn)
            finally:
                turn.leave()

    async def _broken_off(self, begun: Begun) -> None:
        """A bot that is no more left it as it was. What only reads is answered anew, once; of all else it is told."""
        if begun.text and not begun.again and speech.reads(begun.text):
            begun = msgspec.structs.replace(begun, again=True)
            await self._note(begun)
            await self._say(begun)
            return
        answers = self._nearest(begun.cluster, begun.channel).answers
        await self._slack.insist(lambda: answers.break_off(begun))
        await asyncio.to_thread(self._journal.finish, begun)

    async def _say(self, begun: Begun) -> None:
        """Answers what is neither a question nor a decision. Where this bot ends before, what only reads is left to the
        next one; so is to tell what could not be told."""
        under, over = Under(self._journal, begun), True
        try:
            await self._said(under)
        except SlackGone:
            over = False
            raise
        except asyncio.CancelledError:
            if not under.answered:
                over, again = False, self._journal.lasts and not begun.again and speech.reads(begun.text)
                answers = self._nearest(begun.cluster, begun.channel).answers
                await answers.break_off(under.begun, again=again)
                over = not again
            raise
        finally:
            if over:
                await asyncio.to_thread(self._journal.finish, begun)

    async def _said(self, under: Under) -> None:
        begun = under.begun
        place = place_of(begun)
        try:
            said = speech.understand(begun.text)
            desk = self._desks.at(begun.cluster or said.cluster, begun.channel)
        except UserError as error:
            await self._slack.whisper(escape(self._language(error.sentence)), place)
            return
        if said.word == "help":
            await self._slack.whisper(escape(speech.help_text()), place)
        elif said.word in ("fixes", "audit"):
            try:
                desk = await self._desks.of(request_of(said), place.channel, said.cluster)
                lines = await looked_up(said, place, desk, self._slack, self._language)
            except (StoreError, UserError) as error:
                lines = escape(self._language(error.sentence))
            await self._slack.whisper(of_cluster(lines, desk.name), place)
        elif said.word == "capture":
            await desk.captures.take(said.rest, under)
        elif said.word in WORDS:
            await desk.answers.answer(said.word, said.rest, under, written=said.written)
        elif said.word == "policy":
            await desk.policies.answer(said.rest, place)
        elif not said.rest:
            which = say("Which one? {usage}", usage=speech.HELP[said.word])
            await self._slack.whisper(escape(self._language(which)), place)
        else:
            one = say("One at a time: {usage}", usage=speech.HELP[said.word])
            await self._slack.whisper(escape(self._language(one)), place)


async def _done_here(claims: Claims, identity: str, work: Callable[[], Awaitable[None]]) -> bool:
    """Whether this replica did the work."""
    if not await claims.take(identity):
        log.info("%s is answered by another replica", identity)
        return False
    await work()
    await claims.answered(identity)
    return True


def _beside(work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
    return asyncio.ensure_future(_guard(work, what))


async def _guard(work: Coroutine[Any, Any, None], what: str) -> None:
    """Nothing that goes wrong in one piece of work may end the others, or end unseen."""
    try:
        await work
    except UserError as error:
        log.warning("%s: %s", what, error.sentence)
    except Exception:
        log.exception("%s broke", what)
