"""Answers a command in Slack: one message that becomes the answer, long text, files and cards in its thread; without it
what a terminal says of addresses and nodes could not be read where the incident is."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import html
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from bot import asking
from bot.cards import Cards
from bot.conversation import STOPPED, Ticker
from bot.errors import COULD_NOT_JUDGE, UserError
from bot.journal import Begun, Journal
from bot.language import ENGLISH, Language
from bot.line import Line
from bot.reply import blocks
from bot.reply.blocks import Message, escape
from bot.slack import MessageGone, NotInChannel, Slack, SlackGone, cannot_be_heard
from bot.told import WORDS as WORDS
from bot.told import Context, File, Told
from facts import listed, say
from fixes.request import Person
from fixes.store import FixStore, StoreError

log = logging.getLogger(__name__)

BROKEN = say("Something in me broke, and the log has it. Please ask again.")

Opened = Callable[[Callable[[], Awaitable[Person]], Callable[[str], Awaitable[None]], str], Context]


class Answers:
    """Answers the words of WORDS for everybody in the channel, and trouble with the words for who asked alone."""

    def __init__(
        self,
        slack: Slack,
        store: FixStore,
        cards: Cards,
        context: Opened,
        journal: Journal,
        *,
        cluster: str,
        bot_name: str,
        line: Line,
        language: Language = ENGLISH,
    ) -> None:
        """context: what a command may use, of (who asks, what shows progress, all that was written)."""
        self._slack = slack
        self._store = store
        self._cards = cards
        self.measured: Callable[[str, Any], Any] = lambda _, answer: answer  # of a word and what answers it
        self._context = context
        self._journal = journal
        self._cluster = cluster
        self._bot_name = bot_name
        self._line = line
        self._language = language

    async def answer(
        self,
        word: str,
        words: Sequence[str],
        *,
        written: str = "",
        channel: str,
        user: str,
        thread: str = "",
        response_url: str = "",
    ) -> None:
        """written: all after the word as Slack has it, where lines matter. Raises UserError when Slack does not take
        what is said."""
        module: Any = import_module(f"bot.commands.{word}")
        written = html.unescape(written)
        try:
            if getattr(module, "TAKES_TEXT", False):
                words, _ = asking.with_text(written)
            args = asking.understand(word, module, words)
            place = _Place(channel, user, thread, f"{word} {' '.join(words)}".rstrip())
            await self._told(self.measured(word, module.answer), args, written, place)
            return
        except asking.HelpAsked as help_asked:
            refusal = f"```{escape(help_asked.text)}```"
        except NotInChannel as error:
            refusal = self._language(cannot_be_heard(error, self._bot_name))
        except UserError as error:
            refusal = blocks.of_cluster(escape(self._language(error.sentence)), self._cluster)
        await self._slack.whisper(refusal, channel=channel, user=user, thread=thread, response_url=response_url)

    async def _told(self, answer: Any, args: Any, written: str, place: _Place) -> None:
        log.info("audit: %s by %s in %s", place.asked, place.user, place.channel)
        looking = self._message(place.asked, place.user, step=say("looking"))
        ts = await self._slack.insist(lambda: self._slack.post(place.channel, looking, place.thread))
        begun = Begun(
            id=f"{place.channel}-{ts}",
            asked=place.asked,
            user=place.user,
            channel=place.channel,
            ts=ts,
            cluster=self._cluster,
        )

        async def tick(text: str) -> None:
            await self._slack.hint(place.channel, ts, self._message(place.asked, place.user, step=text))

        async with kept(self._journal, begun):
            shown = False
            try:
                async with Ticker(tick) as ticker:
                    told, output = await self._looked(answer, args, written, place, ticker.tell)
                await self._show(self._message(place.asked, place.user, told, output=output), place, ts)
                shown = True
                await self._beside(told, output, place.channel, place.thread or ts)
            except asyncio.CancelledError:
                if not shown:
                    await self.break_off(begun)
                raise

    async def _looked(
        self, answer: Any, args: Any, written: str, place: _Place, progress: Callable[[str], Awaitable[None]]
    ) -> tuple[Told, str]:
        """The answer or why there is none, and in which form it is wanted."""

        async def whoami() -> Person:
            return Person(id=place.user, via="slack")

        try:
            context = dataclasses.replace(self._context(whoami, progress, written), channel=place.channel)
            return await answer(args, context), args.output
        except (UserError, StoreError) as error:
            return Told(headline=error.sentence, mark="unknown"), "text"
        except Exception:
            log.exception("%s could not be answered", place.asked)
            return Told(headline=BROKEN, mark="unknown"), "text"

    async def _show(self, message: Message, place: _Place, ts: str) -> None:
        """In the place of what said that it is looked at; beside it where somebody took that away."""
        try:
            await self._slack.insist(lambda: self._slack.update(place.channel, ts, message))
        except MessageGone:
            await self._slack.insist(lambda: self._slack.post(place.channel, message, place.thread))

    async def break_off(self, begun: Begun) -> None:
        """Say there that it will not be answered, where that can be said at all. Raises SlackGone."""
        stopped = Told(headline=STOPPED, mark="unknown")
        try:
            await self._slack.hint(begun.channel, begun.ts, self._message(begun.asked, begun.user, stopped))
        except SlackGone:
            raise
        except UserError as error:
            log.warning("%s was stopped, which cannot be told: %s", begun.asked, error.sentence)

    def _message(
        self, asked: str, user: str, told: Told | None = None, step: str = "", output: str = "text"
    ) -> Message:
        return blocks.told(
            asked, told, step, output=output, asked_by=user, cluster=self._cluster, language=self._language
        )

    async def _beside(self, told: Told, output: str, channel: str, thread: str) -> None:
        """What belongs to the answer and has no room in one message. Raises UserError for a file that Slack does not
        take, after all else is there."""
        for name in told.requests:
            request = await self._store.get(name)
            await self._slack.insist(partial(self._cards.put_up, request, channel, thread))
        files = _files(told, output, self._language)
        if drawn := await self._line.drawn(told.picture):
            files.append(File(name="answer.png", content=drawn))
        lost: dict[str, str] = {}
        for file in files:
            try:  # Slack took the answer just now: what it does not take of a file, it will not take of it later either
                await self._slack.upload(
                    file.content,
                    name=file.name,
                    title=file.title or file.name,
                    channel=channel,
                    thread=thread,
                    alt_text=told.shows if file.name.endswith(".png") else "",
                )
            except UserError as error:
                lost[file.name] = error.sentence
        if lost:
            raise UserError(
                say(
                    "Slack did not take {names} of this answer: {why} Ask again, or in a terminal.",
                    names=listed(list(lost)),
                    why=next(iter(lost.values())),
                ),
                status=COULD_NOT_JUDGE,
            )


@contextlib.asynccontextmanager
async def kept(journal: Journal, begun: Begun) -> AsyncGenerator[None]:
    """Until it is answered the journal knows what was begun, and longer where Slack is gone: the next bot tells what
    this one cannot. A disk that refuses keeps nobody from an answer."""
    try:
        await asyncio.to_thread(journal.accept, begun)
    except OSError as error:
        log.warning("whether %s is answered is not kept: %s", begun.asked, error)
    try:
        yield
    except SlackGone:
        raise
    except BaseException:
        await asyncio.to_thread(journal.finish, begun)
        raise
    else:
        await asyncio.to_thread(journal.finish, begun)


class _Place(NamedTuple):
    channel: str
    user: str
    thread: str
    asked: str


def _files(told: Told, output: str, language: Language) -> list[File]:
    files = list(told.files)
    headline, notes = language(told.headline), "\n".join(map(language, told.notes))
    if not blocks.fits(escape(headline)) or not blocks.fits(escape(notes)):
        files.insert(0, File(name="sentences.txt", content=f"{headline}\n{notes}\n".encode()))
    whole = told.form(output)
    if not blocks.fits(whole) or output in ("json", "csv"):
        kind = {"json": "json", "csv": "csv", "yaml": "yaml"}.get(output, "txt")
        files.insert(0, File(name=f"answer.{kind}", content=whole.encode()))
    return files
