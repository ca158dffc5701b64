"""Answers a command in Slack: one message that becomes the answer, long text, files and cards in its thread; without it
what a terminal says of addresses and nodes could not be read where the incident is."""

from __future__ import annotations

import asyncio
import dataclasses
import html
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import msgspec

from bot import asking
from bot.cards import Cards
from bot.conversation import STOPPED, STOPPED_KEPT, Ticker
from bot.errors import COULD_NOT_JUDGE, UserError
from bot.journal import Begun, Journal
from bot.language import ENGLISH, Language
from bot.line import Line
from bot.place import place_of
from bot.reply import blocks
from bot.reply.block_kit import Message, escape, of_cluster
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
        self._cluster = cluster
        self._bot_name = bot_name
        self._line = line
        self._language = language

    async def answer(self, word: str, words: Sequence[str], under: Under, *, written: str = "") -> None:
        """written: all after the word as Slack has it, where lines matter. Raises UserError when Slack does not take
        what is said."""
        module: Any = import_module(f"bot.commands.{word}")
        written = html.unescape(written)
        try:
            if getattr(module, "TAKES_TEXT", False):
                words, _ = asking.with_text(written)
            args = asking.understand(word, module, words, written)
            asked = f"{word} {' '.join(words)}".rstrip()
            await self._told(self.measured(word, module.answer), args, written, asked, under)
            return
        except asking.HelpAsked as help_asked:
            refusal = f"```{escape(help_asked.text)}```"
        except NotInChannel as error:
            refusal = self._language(cannot_be_heard(error, self._bot_name))
        except UserError as error:
            refusal = of_cluster(escape(self._language(error.sentence)), self._cluster)
        await self._slack.whisper(refusal, place_of(under.begun))

    async def _told(self, answer: Any, args: Any, written: str, asked: str, under: Under) -> None:
        begun = under.begun
        log.info("audit: %s by %s in %s", asked, begun.user, begun.channel)
        if not begun.ts:
            looking = self._message(asked, begun.user, step=say("looking"))
            ts = await self._slack.insist(lambda: self._slack.post(begun.channel, looking, begun.thread))
            begun = await under.posted(ts, asked)

        async def tick(text: str) -> None:
            await self._slack.hint(begun.channel, begun.ts, self._message(asked, begun.user, step=text))

        async with Ticker(tick) as ticker:
            told, output = await self._looked(answer, args, written, begun, ticker.tell)
        await self._show(self._message(asked, begun.user, told, output=output), begun)
        under.answered = True
        await self._beside(told, output, begun.channel, begun.thread or begun.ts)

    async def _looked(
        self, answer: Any, args: Any, written: str, begun: Begun, progress: Callable[[str], Awaitable[None]]
    ) -> tuple[Told, str]:
        """The answer or why there is none, and in which form it is wanted."""

        async def whoami() -> Person:
            return Person(id=begun.user, via="slack")

        try:
            context = dataclasses.replace(self._context(whoami, progress, written), channel=begun.channel)
            return await answer(args, context), args.output
        except (UserError, StoreError) as error:
            return Told(headline=error.sentence, mark="unknown"), "text"
        except Exception:
            log.exception("%s could not be answered", begun.asked)
            return Told(headline=BROKEN, mark="unknown"), "text"

    async def _show(self, message: Message, begun: Begun) -> None:
        """In the place of what said that it is looked at; beside it where somebody took that away."""
        try:
            await self._slack.insist(lambda: self._slack.update(begun.channel, begun.ts, message))
        except MessageGone:
            await self._slack.insist(lambda: self._slack.post(begun.channel, message, begun.thread))

    async def break_off(self, begun: Begun, *, again: bool = False) -> None:
        """Say there that it is not answered, or `again` by the next bot, where that can be said at all. Raises
        SlackGone."""
        stopped = STOPPED_KEPT if again else STOPPED
        try:
            if begun.ts:
                message = self._message(begun.asked, begun.user, Told(headline=stopped, mark="unknown"))
                await self._slack.hint(begun.channel, begun.ts, message)
            else:
                told = of_cluster(self._language(stopped), self._cluster)
                await self._slack.whisper_once(told, place_of(begun))
        except SlackGone:
            raise
        except UserError as error:
            log.warning("%s was stopped, which cannot be told: %s", begun.asked or begun.id, error.sentence)

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


class Under:
    """A word under way. begun: as the journal has it. answered: its message is the answer."""

    def __init__(self, journal: Journal, begun: Begun) -> None:
        self.begun = begun
        self.answered = False
        self._journal = journal

    async def posted(self, ts: str, asked: str) -> Begun:
        """It has a message: the same, with that. A disk that refuses keeps nobody from an answer."""
        self.begun = msgspec.structs.replace(self.begun, ts=ts, asked=asked)
        try:
            await asyncio.to_thread(self._journal.update, self.begun)
        except OSError as error:
            log.warning("after a kill nobody would change the message of %s: %s", asked, error)
        return self.begun


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
