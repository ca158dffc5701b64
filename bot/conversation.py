"""One question in Slack from its first line to its last reply; without it an answer would be a heap of messages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Protocol

import msgspec

from bot.cards import Cards
from bot.errors import UserError
from bot.fix_requests import requested
from bot.investigate import Investigation, Progress
from bot.journal import Job, Journal
from bot.language import ENGLISH, Language
from bot.line import Line, Turn
from bot.place import place_of
from bot.reply import blocks, picture, wording
from bot.reply.block_kit import Message, escape
from bot.slack import MessageGone, NotInChannel, Slack, SlackFailed, SlackGone, cannot_be_heard
from bot.tracing import span
from facts import say
from fixes.request import FixRequest, Person
from fixes.store import FixStore, StoreError

log = logging.getLogger(__name__)

UPDATE_EVERY_S = 1.0
ALT_TEXT = 1000  # characters, Slack's limit
NOT_DRAWN = say("not drawn, since others wait; in a terminal `--picture FILE` does")
STOPPED = say("I was stopped in the middle of it. Please ask again.")
STOPPED_KEPT = say(
    "I was stopped in the middle of it. The answer comes here once I am back; if it does not within some minutes, "
    "please ask again."
)


class Investigate(Protocol):
    """`bot.investigate.investigate`, bound to a cluster."""

    async def __call__(
        self, words: Sequence[str], *, asked_by: str = "", progress: Progress | None = None
    ) -> Investigation: ...


class Conversation:
    """Answers accepted questions. The message that holds the question becomes the answer; the rest is in its thread."""

    def __init__(
        self,
        slack: Slack,
        journal: Journal,
        store: FixStore,
        cards: Cards,
        investigate: Investigate,
        *,
        cluster: str,
        bot_name: str,
        line: Line,
        language: Language = ENGLISH,
    ) -> None:
        self._slack = slack
        self._journal = journal
        self._store = store
        self._cards = cards
        self._investigate = investigate
        self._cluster = cluster
        self._bot_name = bot_name
        self._language = language
        self._line = line

    async def answer(self, job: Job, turn: Turn) -> None:
        """Answer an accepted question to its end, or tell why not. Raises UserError when Slack does not take it; the
        question stays in the journal then, and is asked again at the next start."""
        investigation, drawn = None, False
        async with turn.place():
            try:
                if job.answer:
                    await self._hint(job, say("looking"))
                else:
                    job = await self._posted(job)
                job, investigation = await self._judge(job)
                if investigation is not None:
                    drawn = not self._line.waiting
                    with span("reply"):
                        await self._reply(job, investigation, drawn)
            except NotInChannel as error:
                await self._slack.whisper(self._language(cannot_be_heard(error, self._bot_name)), place_of(job))
            except asyncio.CancelledError:
                if job.answer and investigation is None:
                    with contextlib.suppress(NotInChannel):
                        await self._hint(job, STOPPED_KEPT if self._journal.lasts else STOPPED)
                raise
        await asyncio.to_thread(self._journal.finish, job)
        if investigation is not None and drawn:  # last: a slow upload keeps nobody from approving, or in the journal
            await self._draw(job.channel, job.thread or job.answer, investigation)

    async def _posted(self, job: Job) -> Job:
        """The same with the message that is to become its answer."""
        line = self._progress(job, say("looking"))
        ts = await self._slack.insist(lambda: self._slack.post(job.channel, line, job.thread))
        job = msgspec.structs.replace(job, answer=ts)
        try:
            await asyncio.to_thread(self._journal.update, job)
        except OSError as error:
            log.warning("%s would be answered in another message after a restart: %s", job.id, error)
        return job

    async def _hint(self, job: Job, step: str) -> None:
        """Never keeps anybody from the answer."""
        try:
            await self._slack.hint(job.channel, job.answer, self._progress(job, step))
        except SlackFailed as error:
            log.warning("progress is not shown: %s", error.sentence)

    async def _show(self, job: Job, message: Message) -> Job:
        """In the place of the question; beside it where somebody took that away. The same with where that is."""
        try:
            await self._slack.insist(lambda: self._slack.update(job.channel, job.answer, message))
        except MessageGone:
            ts = await self._slack.insist(lambda: self._slack.post(job.channel, message, job.thread))
            return msgspec.structs.replace(job, answer=ts)
        return job

    async def _judge(self, job: Job) -> tuple[Job, Investigation | None]:
        """What came of it, once that is shown, and where; None where there is trouble, which is shown."""
        words = job.words.split()
        try:
            async with Ticker(
                lambda text: self._slack.hint(job.channel, job.answer, self._progress(job, text))
            ) as tick:
                investigation = await self._investigate(words, asked_by=job.user, progress=tick.tell)
        except UserError as error:
            return await self._show(job, self._trouble(job, error)), None
        except Exception:
            log.exception("question %s could not be judged", job.id)
            broken = say(
                "I could not judge this: something in me broke, and the log has it under {name}. Please ask again.",
                name=job.id,
            )
            return await self._show(job, self._trouble(job, UserError(self._language(broken)))), None
        return await self._show(job, blocks.answer(investigation, self._language)), investigation

    async def _reply(self, job: Job, investigation: Investigation, drawn: bool) -> None:
        """drawn: a picture comes after it, where there is one."""
        channel, thread = job.channel, job.thread or job.answer
        cards: list[Message] = []
        bare: dict[str, FixRequest] = {}  # those without a card
        try:
            for request in await requested(investigation, self._store, Person(id=job.user, via="slack")):
                if request.status.slack is None:
                    bare[request.name] = request
                    cards.append(Message(text="", blocks=[], request=request.name))
                else:
                    cards.append(await self._cards.elsewhere(request))
        except StoreError as error:
            refused = say("There is a fix for this, but it cannot be asked for. {why}", why=error.sentence)
            cards.append(_plain(self._language(refused)))
        note = "" if drawn or investigation.diagnosis.verdict == "healthy" else NOT_DRAWN
        for message in blocks.thread(investigation, cards, note=note, language=self._language):
            if message.request:
                await self._slack.insist(partial(self._cards.put_up, bare[message.request], channel, thread))
            else:
                await self._slack.insist(partial(self._slack.post, channel, message, thread))

    async def _draw(self, channel: str, thread: str, investigation: Investigation) -> None:
        """The path as a picture, where something is wrong with it. Without it the thread says all the same."""
        diagnosis = investigation.diagnosis
        drawn = picture.render(investigation, self._language) if diagnosis.verdict != "healthy" else ""
        if not drawn:
            return
        shown = await self._line.drawn(drawn)  # an SVG has to be opened to be seen
        try:
            await self._slack.upload(
                shown or drawn.encode(),
                name=f"{investigation.id}.{'png' if shown else 'svg'}",
                title=self._language(say("The path: {legs}", legs=investigation.asked)),
                channel=channel,
                thread=thread,
                alt_text=wording.path_in_words(diagnosis, self._language)[:ALT_TEXT],
            )
        except UserError as error:
            log.warning("the picture of %s was not uploaded: %s", investigation.id, error.sentence)

    def _progress(self, job: Job, step: str) -> Message:
        return blocks.progress(job.words, step, asked_by=job.user, cluster=self._cluster, language=self._language)

    def _trouble(self, job: Job, error: UserError) -> Message:
        """The question's own line, and below it what is wrong with it."""
        message = blocks.trouble(error, job.words.split(), self._cluster)
        return Message(text=message.text, blocks=[*self._progress(job, "").blocks[:1], *message.blocks])


class Ticker:
    """Shows the newest progress at most once a second, and never after it was left."""

    def __init__(self, show: Callable[[str], Awaitable[None]]) -> None:
        self._show = show
        self._newest = ""
        self._news = asyncio.Event()
        self._over = asyncio.Event()

    async def tell(self, text: str) -> None:
        self._newest = text
        self._news.set()

    async def __aenter__(self) -> Ticker:
        self._task = asyncio.ensure_future(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._news.set()
        await self._task  # an update on its way must not arrive behind the answer

    async def _run(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), UPDATE_EVERY_S)
            await self._news.wait()
            self._news.clear()
            if not self._over.is_set():
                try:
                    await self._show(self._newest)
                except SlackGone as gone:
                    log.warning("progress is not shown: %s", gone.sentence)
                    with contextlib.suppress(TimeoutError):  # what may be said soon is left to the answer
                        await asyncio.wait_for(self._over.wait(), gone.retry_after_s)
                except UserError as error:
                    log.warning("progress is not shown: %s", error.sentence)


def _plain(text: str) -> Message:
    return Message(text=escape(text), blocks=[])
