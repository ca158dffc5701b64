"""`capture` in Slack: who may, what they see meanwhile, and the file in the thread; without it packets would be handed
to whoever is in the channel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from bot.approvals import Approvals, GroupsUnknown
from bot.capture import Captured, Take, Wanted, headline, notes, table, understand
from bot.conversation import Ticker
from bot.errors import UserError
from bot.language import ENGLISH, Language
from bot.reply import blocks
from bot.reply.blocks import escape
from bot.slack import NotInChannel, Slack, escape_but_mentions
from facts import say
from fixes.request import Person

log = logging.getLogger(__name__)


class Capturing(NamedTuple):
    """How the bot captures."""

    take: Take
    allowed: str  # "headers": everybody headers, approvers whole packets; "approvers": nobody else; "off"


class Captures:
    """Captures packets for people in Slack. The message that says so becomes the summary; the file is in its thread."""

    def __init__(
        self,
        slack: Slack,
        approvals: Approvals,
        capturing: Capturing | None,
        *,
        cluster: str,
        bot_name: str,
        language: Language = ENGLISH,
    ) -> None:
        """capturing: None where nothing is to be captured from Slack."""
        self._slack = slack
        self._approvals = approvals
        self._capturing = capturing
        self._cluster = cluster
        self._bot_name = bot_name
        self._language = language

    async def take(
        self, words: Sequence[str], *, channel: str, user: str, thread: str = "", response_url: str = ""
    ) -> None:
        """Capture for `user`, or tell them alone why not. Raises UserError when Slack does not take what is said."""
        try:
            wanted = understand(words)
        except UserError as error:
            refusal = escape(error.sentence)
        else:
            refusal = escape_but_mentions(self._language(await self._refusal(wanted, channel, user)))
            if not refusal and self._capturing is not None:
                try:
                    await self._capture(wanted, self._capturing.take, channel, user, thread)
                except NotInChannel:
                    refusal = self._language(
                        say(
                            "I am not in this channel, so I cannot answer here. Write `/invite @{name}` and ask again.",
                            name=self._bot_name,
                        )
                    )
        if refusal:
            await self._slack.whisper(refusal, channel=channel, user=user, thread=thread, response_url=response_url)

    async def _refusal(self, wanted: Wanted, channel: str, user: str) -> str:
        """Why this person may not have this, "" when they may. What is not known is a no."""
        if self._capturing is None or self._capturing.allowed == "off":
            log.info("audit: capture %s by %s in %s: refused, switched off", wanted, user, channel)
            return say(
                "Nothing is captured from Slack here (CALICO_WHY_SLACK_CAPTURE). Who holds the bot's certificate "
                "captures in a terminal: {command}",
                command=f"calico-why capture {wanted}",
            )
        entry = "everybody"
        if wanted.payload or self._capturing.allowed != "headers":
            try:
                entry = await self._approvals.entry(Person(id=user, via="slack"), "capture")
            except GroupsUnknown as unknown:
                log.info("audit: capture %s by %s in %s: refused, %s", wanted, user, channel, unknown)
                return say(
                    "Slack did not say who may capture ({why}), so nobody may for now. Try again later.", why=unknown
                )
            if not entry:
                log.info("audit: capture %s by %s in %s: refused, no approver", wanted, user, channel)
                return say(
                    "You may not capture whole packets: {who_may} Headers you may: leave out --payload."
                    if self._capturing.allowed == "headers"
                    else "You may not capture: {who_may}",
                    who_may=self._approvals.who_may("slack", "capture"),
                )
        log.info("audit: capture %s by %s in %s: allowed by %s", wanted, user, channel, entry)
        return ""

    async def _capture(self, wanted: Wanted, take: Take, channel: str, user: str, thread: str) -> None:
        message = partial(blocks.capture, str(wanted), asked_by=user, cluster=self._cluster, language=self._language)
        ts = await self._slack.post(channel, message(say("looking")), thread)
        try:
            async with Ticker(lambda text: self._slack.update(channel, ts, message(text))) as tick:
                captured = await take(wanted, progress=tick.tell)
        except UserError as error:
            await self._slack.update(channel, ts, message(notes=[error.sentence]))
            return
        except asyncio.CancelledError:
            stopped = say("I was stopped in the middle of it, and what was captured is gone. Please ask again.")
            await self._slack.update(channel, ts, message(notes=[self._language(stopped)]))
            raise
        except Exception:
            log.exception("capture %s could not be made", wanted)
            broken = say("Something in me broke, and the log has it. Nothing was captured.")
            await self._slack.update(channel, ts, message(notes=[self._language(broken)]))
            return
        told = notes(captured, self._language)
        if captured.packets:
            told += await self._uploaded(captured, channel, thread or ts)
        head, rows = headline(captured, self._language), table(captured, self._language)
        await self._slack.update(channel, ts, message(headline=head, table=rows, notes=told))

    async def _uploaded(self, captured: Captured, channel: str, thread: str) -> list[str]:
        """The file goes to the thread; why it could not, to be told."""
        try:
            await self._slack.upload(
                captured.file, name=captured.name, title=f"capture {captured.wanted}", channel=channel, thread=thread
            )
        except UserError as error:
            lost = say(
                "The file could not be uploaded: {why} In a terminal it is written to disk: {command}",
                why=error.sentence,
                command=f"calico-why capture {captured.wanted}",
            )
            return [self._language(lost)]
        return []
