"""Answers a command in Slack: one message that becomes the answer, long text, files and cards in its thread; without it
what a terminal says of addresses and nodes could not be read where the incident is."""

from __future__ import annotations

import asyncio
import html
import logging
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from bot import asking
from bot.cards import Cards
from bot.conversation import Ticker
from bot.errors import UserError
from bot.language import ENGLISH, Language
from bot.reply import blocks, png
from bot.reply.blocks import Message, escape
from bot.slack import NotInChannel, Slack
from bot.told import WORDS as WORDS
from bot.told import Context, File, Told
from facts import say
from fixes.request import Person
from fixes.store import FixStore, StoreError

log = logging.getLogger(__name__)

STOPPED = say("I was stopped in the middle of it. Please ask again.")
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
        language: Language = ENGLISH,
    ) -> None:
        """context: what a command may use, of (who asks, what shows progress, all that was written)."""
        self._slack = slack
        self._store = store
        self._cards = cards
        self._context = context
        self._cluster = cluster
        self._bot_name = bot_name
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
            await self._told(module.answer, args, written, place)
            return
        except asking.HelpAsked as help_asked:
            refusal = f"```{escape(help_asked.text)}```"
        except NotInChannel:
            refusal = self._language(
                say(
                    "I am not in this channel, so I cannot answer here. Write `/invite @{name}` and ask again.",
                    name=self._bot_name,
                )
            )
        except UserError as error:
            refusal = blocks.of_cluster(escape(error.sentence), self._cluster)
        await self._slack.whisper(refusal, channel=channel, user=user, thread=thread, response_url=response_url)

    async def _told(self, answer: Any, args: Any, written: str, place: _Place) -> None:
        def message(told: Told | None = None, step: str = "", output: str = "text") -> Message:
            return blocks.told(
                place.asked,
                told,
                step,
                output=output,
                asked_by=place.user,
                cluster=self._cluster,
                language=self._language,
            )

        async def whoami() -> Person:
            return Person(id=place.user, via="slack")

        log.info("audit: %s by %s in %s", place.asked, place.user, place.channel)
        ts = await self._slack.post(place.channel, message(step=say("looking")), place.thread)

        async def show(told: Told, output: str = "text") -> None:
            await self._slack.update(place.channel, ts, message(told, output=output))
            await self._beside(told, output, place.channel, place.thread or ts)

        try:
            async with Ticker(lambda text: self._slack.update(place.channel, ts, message(step=text))) as tick:
                told: Told = await answer(args, self._context(whoami, tick.tell, written))
        except (UserError, StoreError) as error:
            await show(Told(headline=error.sentence, mark="unknown"))
            return
        except asyncio.CancelledError:
            await show(Told(headline=STOPPED, mark="unknown"))
            raise
        except Exception:
            log.exception("%s could not be answered", place.asked)
            await show(Told(headline=BROKEN, mark="unknown"))
            return
        await show(told, args.output)

    async def _beside(self, told: Told, output: str, channel: str, thread: str) -> None:
        """What belongs to the answer and has no room in one message."""
        for file in _files(told, output, self._language):
            await self._slack.upload(
                file.content,
                name=file.name,
                title=file.title or file.name,
                channel=channel,
                thread=thread,
                alt_text=told.shows if file.name.endswith(".png") else "",
            )
        for name in told.requests:
            await self._cards.put_up(await self._store.get(name), channel, thread)


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
    drawn = png.render(told.picture) if told.picture else b""
    if drawn:
        files.append(File(name="answer.png", content=drawn))
    return files
