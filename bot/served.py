"""The clusters that one bot serves, each with what answers and decides for it; without it a click on a card of one
cluster could change another."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from bot.approvals import Approvals, Cached, meant
from bot.approved_captures import BUSY_S, WORKER, CaptureHands
from bot.captures import Captures, Capturing
from bot.cards import Cards
from bot.conversation import Conversation, Investigate
from bot.errors import COULD_NOT_JUDGE, UserError
from bot.in_slack import Answers, Opened
from bot.investigate import Investigation, Progress
from bot.journal import Job, Journal
from bot.language import ENGLISH, Language
from bot.line import PLACES, Line, Turn
from bot.metrics import Metrics
from bot.policies import Judge, Policies
from bot.second_look import second_look
from bot.slack import Slack
from bot.tracing import span
from bot.words import watches
from facts import joined, listed, say
from fixes.approvers import Approvers
from fixes.claims import Claims
from fixes.executor import Executor
from fixes.store import FixStore, StoreError


@dataclass(frozen=True, kw_only=True)
class Served:
    """One cluster: how it is asked, where its fix requests are, who may decide on them."""

    name: str
    investigate: Investigate
    judge: Judge
    context: Opened
    store: FixStore
    approvers: Approvers
    capturing: Capturing | None = None


def measured(served: Served, metrics: Metrics) -> Served:
    """The same, whose answers are counted and timed."""
    metrics.serves(served.name)
    capturing = served.capturing

    async def investigate(
        words: Sequence[str], *, asked_by: str = "", progress: Progress | None = None
    ) -> Investigation:
        word = "watch" if "watch" in words else "why"
        with metrics.asked(served.name, word), span("investigation", cluster=served.name) as note:
            answer = await served.investigate(words, asked_by=asked_by, progress=progress)
            note("verdict", answer.diagnosis.verdict)
        metrics.diagnosed(served.name, answer.diagnosis)
        return answer

    return replace(
        served,
        investigate=investigate,
        judge=metrics.measured(served.name, "policy", served.judge),
        capturing=capturing and capturing._replace(take=metrics.measured(served.name, "capture", capturing.take)),
    )


class Desk:
    """All that answers and decides for one cluster in Slack."""

    def __init__(
        self,
        served: Served,
        slack: Slack,
        journal: Journal,
        *,
        metrics: Metrics,
        line: Line,
        members: Cached[frozenset[str]],
        outside: Cached[str],
        bot_name: str,
        flag: str = "",
        language: Language = ENGLISH,
    ) -> None:
        """members, outside: what Slack says of groups and people. flag: what leads a question to this cluster."""
        served = measured(served, metrics)
        self.name = served.name
        self.share = asyncio.Semaphore(PLACES)  # of the questions that are looked into at once
        self.store = served.store
        self.claims = Claims(served.store, journal.identity)
        self.approvals = Approvals(served.store, served.approvers, members, outside=outside)
        look = second_look(served.investigate, language)
        self.cards = Cards(slack, served.store, served.approvers, look, self.approvals, language, cluster=served.name)
        self._served = served
        self.conversation = Conversation(
            slack,
            journal,
            served.store,
            self.cards,
            served.investigate,
            cluster=served.name,
            bot_name=bot_name,
            line=line,
            language=language,
        )
        self.captures = Captures(
            slack,
            self.approvals,
            served.store,
            self.cards,
            served.capturing,
            cluster=served.name,
            bot_name=bot_name,
            language=language,
        )
        self.answers = Answers(
            slack,
            served.store,
            self.cards,
            served.context,
            cluster=served.name,
            bot_name=bot_name,
            line=line,
            language=language,
        )
        self.policies = Policies(
            slack, served.judge, cluster=served.name, bot_name=bot_name, flag=flag, language=language
        )

        self.cards.saw = metrics.fixes(served.name, served.store)
        self.answers.measured = partial(metrics.measured, served.name)

    async def answer(self, job: Job, turn: Turn) -> None:
        """An accepted question, as `Conversation.answer`; no more at once than this cluster's share, but for those who
        watch."""
        async with contextlib.nullcontext() if watches(job.words) else self.share:
            await self.conversation.answer(job, turn)

    async def capture_what_is_approved(self) -> None:
        """Until cancelled."""
        capturing = self._served.capturing
        if capturing is not None and capturing.allowed != "off":
            hands = CaptureHands(self.captures, capturing.plan, capturing.take)
            await Executor(hands, self.store, self._served.approvers, worker=WORKER, busy_s=BUSY_S).run()


class Desks:
    """The desk for a word or a click. The first one is for who says nothing of clusters."""

    def __init__(self, desks: Sequence[Desk], channels: Mapping[str, str]) -> None:
        """channels: Slack channel id -> the cluster that is meant there."""
        self._desks = {one.name: one for one in desks}
        for one in desks:  # of several none has all places, lest an API server that hangs keeps the others waiting
            one.share = asyncio.Semaphore(PLACES // 2 if len(desks) > 1 else PLACES)
        self._channels = channels

    def __iter__(self) -> Iterator[Desk]:
        return iter(self._desks.values())

    def at(self, cluster: str, channel: str) -> Desk:
        """The desk of that cluster; for "" the channel's. Raises UserError for one that is not served here."""
        wanted = cluster or self._channels.get(channel) or next(iter(self._desks))
        if found := self._desks.get(wanted):
            return found
        near = difflib.get_close_matches(wanted, self._desks, n=1)
        known = joined(list(self._desks))
        unknown = (
            say("I do not serve a cluster {cluster}. Did you mean {near}?", cluster=_shown(wanted), near=near[0])
            if near
            else say("I do not serve a cluster {cluster}. There is: {names}.", cluster=_shown(wanted), names=known)
        )
        raise UserError(unknown)

    async def of(self, name: str, channel: str, cluster: str = "") -> Desk:
        """The desk of the request of this name: of `cluster` where that was said, else wherever there is one, the
        channel's before others, and that one where there is none. Raises UserError when one could not be asked that
        may have it."""
        first = self.at(cluster, channel)
        name = meant(name)
        others = [one for one in self if one is not first]
        if cluster or not others or not name or await _has(first, name) is True:
            return first
        found = await asyncio.gather(*(_has(one, name) for one in others))
        for one, has in zip(others, found, strict=True):
            if has is True:
                return one
        silent = [one.name for one, has in zip(others, found, strict=True) if has is None]
        if not silent:
            return first
        raise UserError(
            say(
                "I do not know where {name} is: {clusters} cannot be asked now. Nothing was changed. Try again later.",
                name=name,
                clusters=listed(silent),
            ),
            status=COULD_NOT_JUDGE,
        )


async def _has(desk: Desk, name: str) -> bool | None:
    """None where it cannot be said."""
    try:
        await desk.store.get(name)
    except StoreError as error:
        return False if error.missing else None
    return True


def _shown(name: str) -> str:
    return repr(name if len(name) <= 60 else name[:59] + "…")
