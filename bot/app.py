"""Slack wiring and nothing else: which delivery leads to which function; without it nobody in Slack would be heard."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import msgspec
from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.context.ack.async_ack import AsyncAck
from slack_bolt.response import BoltResponse

from bot import speech
from bot.approvals import Cached, Decision, Shown, meant
from bot.decisions import REASON_MAX, Decisions
from bot.delivery import GIVE_UP_AFTER_S, Acknowledging, Body, Delivery, SlackSettings
from bot.errors import UserError
from bot.health import Health
from bot.in_slack import WORDS
from bot.journal import Begun, Click, Job, Journal, Kept
from bot.language import ENGLISH, Language
from bot.line import Lines
from bot.metrics import Metrics
from bot.place import Place, place_of
from bot.reply import block_kit, blocks
from bot.reply.block_kit import escape, of_cluster
from bot.reply.fix_card import APPROVE, REASON, REJECT, reason_form
from bot.served import Desk, Desks, Served
from bot.slack import Identity, NotInChannel, Slack, escape_but_mentions, others, web_client
from bot.work import Work
from facts import say
from fixes.request import Person, Phase
from fixes.store import StoreError

log = logging.getLogger(__name__)

COMMAND = "/calico"
ACKNOWLEDGED_S = 2.0  # of Slack's 3 s, where words only ask for something
JUDGED_IN_S = 1.0  # of the 3 s in which a click may still open a form

NOT_KEPT = "I cannot keep your question safe (the disk refuses), so I did not take it. Please tell who runs me."
CLICK_NOT_KEPT = (
    "I cannot keep your decision safe (the disk refuses), so I did not take it, and nothing was changed. Please tell "
    "who runs me."
)

OWN_ONLY = "I answer people of my own workspace only."


class App:
    """The bot in Slack. `run` serves until told to stop."""

    def __init__(
        self,
        settings: SlackSettings,
        clusters: Sequence[Served],
        *,
        journal: Journal,
        channels: Mapping[str, str] = MappingProxyType({}),
        language: Language = ENGLISH,
        metrics: Metrics | None = None,
    ) -> None:
        """clusters: the first is meant where nobody says which. channels: channel id -> the one that is meant there."""
        self._settings = settings
        self._served = clusters
        self._journal = journal
        self._channels = channels
        self._language = language
        self.metrics = metrics or Metrics()
        self._lines = Lines()
        client = web_client(settings.bot_token, settings.api_url, self.metrics.told_to_wait)
        self._slack = Slack(client, self.metrics.called)
        self.health = Health(journal, dead_after_s=GIVE_UP_AFTER_S)
        self.metrics.reads(
            connected=lambda: self.health.connected,
            heard_s=self.health.heard_s,
            waiting=lambda: self._lines.waiting,
            journal={"question": lambda: journal.depth(Job), "decision": lambda: journal.depth(Click)},
        )
        self._delivery = Delivery(settings, self._slack, self.health)
        self.ready = self._delivery.ready

    @property
    def address(self) -> tuple[str, int] | None:
        """In HTTP mode, once it listens."""
        return self._delivery.address

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Raises UserError when Slack cannot be served at all."""
        async with self._slack.connected():
            me = await self._delivery.once_there(self._slack.who, stop)
            if me is not None:
                await self._serve(me, stop)

    async def _serve(self, me: Identity, stop: asyncio.Event) -> None:
        self._me = me
        members, outside = Cached(self._slack.members), Cached(self._outside)
        self._channel_is_shared = Cached(self._is_shared)
        self._desks = Desks(
            [
                Desk(
                    one,
                    self._slack,
                    self._journal,
                    metrics=self.metrics,
                    line=self._lines.questions,
                    members=members,
                    outside=outside,
                    bot_name=me.name,
                    flag=f" --cluster {one.name}" if len(self._served) > 1 else "",
                    language=self._language,
                )
                for one in self._served
            ],
            self._channels,
        )
        self._decisions = Decisions(self._slack, self._journal, self._desks, team=me.team, language=self._language)
        self._work = Work(self._slack, self._journal, self._desks, self._decisions, self._lines, self._language)
        async with self._work.going_on():
            await self._delivery.serve(self._wire(), stop)

    # -- deliveries -------------------------------------------------------------------------------------------------

    def _wire(self) -> AsyncApp:
        quiet = logging.getLogger("bot.bolt")
        quiet.setLevel(logging.ERROR)  # below that Bolt logs whole bodies, tokens and response URLs included
        authorized = AuthorizeResult.from_auth_test_response(
            auth_test_response=self._me.answer,
            bot_token=self._settings.bot_token,
        )

        async def authorize(**_: object) -> AuthorizeResult:
            return authorized

        app = Acknowledging(
            self.metrics.acknowledged,
            name="calico-why",  # else it looks for one in the source of every caller
            client=self._slack.client,
            logger=quiet,
            signing_secret=self._settings.signing_secret or "not used in socket mode",
            authorize=authorize,
            ssl_check_enabled=False,  # it would answer 200 to anybody, before the signature is looked at
        )
        if self._settings.shared == "refuse":
            app.middleware(self._among_us)
        app.command(COMMAND)(self._on_command)
        app.event("app_mention", middleware=[self._accept_mention])(self._on_mention)
        app.action(APPROVE)(self._on_approve)
        app.action(REJECT)(self._on_reject)
        app.view(REASON)(self._on_reason)
        app.action(re.compile(rf"{blocks.CHOOSE}:\d+"))(self._on_choose)
        app.error(self._on_error)
        return app

    async def _among_us(self, ack: AsyncAck, body: Body, next: Callable[[], Awaitable[BoltResponse]]) -> BoltResponse:
        """Nothing of a cluster is said where people of another workspace read it."""
        event = body.get("event") or {}
        channel = body.get("channel_id") or event.get("channel") or (body.get("channel") or {}).get("id") or ""
        refusal = await self._shared(str(channel), known=bool(body.get("is_ext_shared_channel"))) if channel else ""
        if not refusal:
            return await next()
        user = body.get("user_id") or event.get("user") or (body.get("user") or {}).get("id") or "?"
        place = Place(channel=str(channel), user=str(user), response_url=str(body.get("response_url") or ""))
        identity = str(body.get("event_id") or body.get("trigger_id"))
        if await self._work.first(identity):
            telling = partial(self._slack.whisper, self._language(refusal), place)
            told = self._work.told_once(identity, place.channel, telling) if event else telling()
            self._work.spawn(told, "a refusal")
        return await ack()

    async def _is_shared(self, channel: str) -> bool:
        return (await self._slack.channel(channel)).shared

    async def _shared(self, channel: str, *, known: bool) -> str:
        """Why nothing is answered in this channel, "" where it is our own."""
        if channel.startswith("D"):  # of the bot and one person, who is of its workspace
            return ""
        try:
            async with asyncio.timeout(JUDGED_IN_S):
                if not known and not await self._channel_is_shared(channel):
                    return ""
        except NotInChannel:
            return ""  # where nothing can be said in any case
        except (UserError, TimeoutError) as error:
            log.warning("whether %s is shared with another workspace: %s", channel, error or "Slack takes too long")
            return say("I cannot see whether this channel is shared with another workspace, so I answer nothing here.")
        return say("This channel is shared with another workspace, so I answer nothing here.")

    async def _on_command(self, ack: AsyncAck, body: Body) -> None:
        if body.get("team_id") != self._me.team:
            await ack(text=self._language(say(OWN_ONLY)))
            place = Place(channel=str(body.get("channel_id") or ""), user=str(body.get("user_id") or "?"))
            self._work.spawn(self._note_stranger(f"{COMMAND} {body.get('text') or ''}", place), "a stranger's command")
            return
        try:
            said = speech.understand(str(body.get("text") or ""))
            desk = self._desks.at(said.cluster, body["channel_id"])
        except UserError as error:
            await ack(text=escape(self._language(error.sentence)))
            return
        if said.word == "help":
            await ack(text=escape(speech.help_text(f"{COMMAND} ")))
            return
        place = Place(channel=body["channel_id"], user=body["user_id"], response_url=body.get("response_url", ""))
        identity = f"command-{body['trigger_id']}"
        if click := self._decisions.of_words(said, place, identity):
            await self._take(ack, click)
        elif said.word == "why":
            await self._take_question(ack, _question(identity, said, place, desk))
        else:
            await self._take_word(ack, _word(identity, str(body.get("text") or ""), place, desk.name), said.word)

    async def _take_question(self, ack: AsyncAck, job: Job) -> None:
        accepted = await self._work.accept(job)
        if accepted is None:
            await ack(text=self._language(say(NOT_KEPT)))
        elif not accepted:
            await ack()
        else:
            turn, waits = self._work.turn(job)
            await (ack(text=waits) if waits else ack())
            self._work.spawn(self._work.answer(job, turn), f"question {job.id}")

    async def _take_word(self, ack: AsyncAck, begun: Begun, word: str) -> None:
        if await self._work.accept(begun) is not False:
            work = self._work.spawn(self._work.do(begun), f"{COMMAND} {word}")
            await asyncio.wait({work}, timeout=ACKNOWLEDGED_S)  # some words take long
        await ack()

    async def _accept_mention(self, body: Body, context: dict[str, Any], next: Callable[[], Awaitable[None]]) -> None:
        """Before Bolt acknowledges the event, what it asks for is on disk."""
        event, identity = body["event"], str(body["event_id"])
        team = event.get("user_team") or event.get("team") or self._me.team
        if not event.get("bot_id") and event.get("user"):
            place = Place(channel=event["channel"], user=event["user"], thread=event.get("thread_ts", ""))
            text = str(event.get("text") or "")
            if team == self._me.team:
                context["work"] = await self._mentioned(identity, text, str(event["ts"]), place)
            elif await self._work.first(identity):
                turning_away = partial(self._turn_away, text, place)
                context["work"] = self._work.told_once(identity, place.channel, turning_away)
        await next()

    async def _turn_away(self, text: str, place: Place) -> None:
        """Another workspace's member, who mentioned the bot."""
        await self._note_stranger(text, place)
        await self._slack.whisper(self._language(say(OWN_ONLY)), place)

    async def _note_stranger(self, text: str, place: Place) -> None:
        """What a stranger wrote is a denial in the trail, of the request that it names."""
        name = next(filter(None, map(meant, text.split())), "")
        desk = await self._desks.of(name, place.channel)
        await desk.approvals.note_refusal(name, f"{text[:100]}: {OWN_ONLY}", Person(id=place.user, via="slack"))

    async def _outside(self, user: str) -> str:
        return await self._slack.outside(user, self._me.team)

    async def _mentioned(self, identity: str, text: str, ts: str, place: Place) -> Coroutine[Any, Any, None] | None:
        """What is to be done about a mention; None when it was done before."""
        kept = msgspec.structs.replace(self._asked(identity, text, ts, place), event=True)
        accepted = await self._work.accept(kept)
        if accepted is None and not isinstance(kept, Begun):
            refusal = say(NOT_KEPT if isinstance(kept, Job) else CLICK_NOT_KEPT)
            return self._slack.whisper(self._language(refusal), place)
        return None if accepted is False else self._work.once(kept)

    def _asked(self, identity: str, text: str, ts: str, place: Place) -> Kept:
        """What a mention asks for. What cannot be understood is told when its turn comes, too."""
        try:
            said = speech.understand(text)
            desk = self._desks.at(said.cluster, place.channel)
        except UserError:
            return _word(identity, text, place)
        below = msgspec.structs.replace(place, thread=place.thread or ts)
        if said.word == "why":
            return _question(identity, said, below, desk)
        if click := self._decisions.of_words(said, place, identity):
            return click
        return _word(identity, text, below if said.word in ("capture", "policy", *WORDS) else place, desk.name)

    async def _on_mention(self, context: dict[str, Any]) -> None:
        if work := context.get("work"):
            self._work.spawn(work, "a mention")

    async def _on_approve(self, ack: AsyncAck, body: Body) -> None:
        place, container = _place_of_click(body), body["container"]
        name, cluster = _meant_by_click(body)
        click = Click(
            id=f"click-{body['trigger_id']}",
            request=name,
            to=Phase.APPROVED,
            user=place.user,
            team=_team(body),
            channel=place.channel,
            thread=place.thread,
            card=container["message_ts"],
            response_url=place.response_url,
            cluster=cluster,
        )
        await self._take(ack, click)

    async def _on_reject(self, ack: AsyncAck, body: Body) -> None:
        """A form opens within 3 s of its click or never, so whether it did is what is acknowledged: who clicks a bot
        that dies before is told by Slack that it failed."""
        await asyncio.wait({self._work.spawn(self._ask_reason(body), "a rejection")})
        await ack()

    async def _on_reason(self, ack: AsyncAck, body: Body) -> None:
        view = body["view"]
        # Forms of before there were several clusters do not say which one.
        name, channel, ts, thread, *clusters = msgspec.json.decode(view["private_metadata"], type=list[str])
        entered = view["state"]["values"][REASON][REASON].get("value") or ""
        click = Click(
            id=f"form-{body['trigger_id']}",
            request=name,
            to=Phase.REJECTED,
            user=body["user"]["id"],
            team=_team(body),
            channel=channel,
            thread=thread,
            card=ts,
            reason=" ".join(str(entered).split())[:REASON_MAX],
            cluster="".join(clusters),
        )
        await self._take(ack, click)

    async def _take(self, ack: AsyncAck, click: Click) -> None:
        """What decides is on disk before it is acknowledged, and decided after that, however long the cluster takes."""
        accepted = await self._work.accept(click)
        if accepted is None:
            refusing = self._slack.whisper(self._language(say(CLICK_NOT_KEPT)), place_of(click))
            self._work.spawn(refusing, f"click {click.id}")
        await ack()
        if accepted:
            self._work.spawn(self._work.do(click), f"click {click.id}")

    async def _on_choose(self, ack: AsyncAck, body: Body) -> None:
        """One of the names that could have been meant: the same message becomes the answer to that."""
        await ack()
        place, container = _place_of_click(body), body["container"]
        if _team(body) != self._me.team:
            await self._slack.whisper(self._language(say(OWN_ONLY)), place)
            return
        words, cluster = _meant_by_click(body)
        try:
            said = speech.understand(f"why {words}")
            desk = self._desks.at(cluster, place.channel)
        except UserError as error:
            self._work.spawn(self._slack.whisper(escape(self._language(error.sentence)), place), "a sentence")
            return
        identity = f"choice-{container['message_ts']}-{' '.join(said.rest)}"
        job = msgspec.structs.replace(_question(identity, said, place, desk), answer=container["message_ts"])
        if await self._work.accept(job):
            self._work.spawn(self._work.do(job), f"question {job.id}")

    async def _on_error(self, error: Exception) -> None:
        log.error("a delivery from Slack could not be handled", exc_info=error)

    async def _clicked(self, body: Body, to: Phase) -> tuple[Desk, str, Place, Shown] | None:
        """What was clicked by whom; None when it was a stranger, who is told, and whose try is in the audit trail.
        Raises UserError."""
        place, container = _place_of_click(body), body["container"]
        name, cluster = _meant_by_click(body)
        shown = container["channel_id"], container["message_ts"]
        desk = await self._desks.of(name, place.channel, cluster)
        if _team(body) == self._me.team:
            return desk, name, place, shown
        refusal = others()
        await self._slack.whisper(self._language(refusal), place)
        stranger = Person(id=place.user, via="slack")
        await desk.approvals.write_down(name, to, stranger, Decision(False, refusal), shown)
        return None

    async def _ask_reason(self, body: Body) -> None:
        """Who may not reject is told at once. Who may is asked why, and judged again when the answer comes."""
        try:
            clicked = await self._clicked(body, Phase.REJECTED)
        except UserError as error:
            await self._slack.whisper(escape(self._language(error.sentence)), _place_of_click(body))
            return
        if clicked is None:
            return
        desk, name, place, shown = clicked
        person = Person(id=place.user, via="slack")
        try:
            judging = desk.approvals.refusal(name, Phase.REJECTED, person, shown=shown)
            refused = await asyncio.wait_for(judging, JUDGED_IN_S)
        except TimeoutError:
            refused = None
        except StoreError as error:
            await self._slack.whisper(of_cluster(escape(error.sentence), desk.name), place)
            return
        if refused is not None:
            why = escape_but_mentions(self._language(refused.sentence))
            await self._slack.whisper(of_cluster(why, desk.name), place)
            if refused.request is not None:
                self._work.spawn(desk.cards.draw(refused.request), "a card")
            return
        about = msgspec.json.encode([name, *shown, place.thread, desk.name]).decode()
        try:
            form = reason_form(name, about, REASON_MAX, self._language)
            await self._slack.call(self._slack.client.views_open, trigger_id=body["trigger_id"], view=form)
        except UserError as error:
            words = say(
                "{why} So you were not asked for a reason, and nothing was changed. In words: {command}",
                why=error.sentence,
                command=f"{COMMAND} reject {name}",
            )
            await self._slack.whisper(escape(self._language(words)), place)


def _question(identity: str, said: speech.Said, place: Place, desk: Desk) -> Job:
    return Job(
        id=identity,
        words=" ".join(said.rest),
        user=place.user,
        channel=place.channel,
        thread=place.thread,
        response_url=place.response_url,
        cluster=desk.name,
    )


def _word(identity: str, text: str, place: Place, cluster: str = "") -> Begun:
    """One that is neither a question nor a decision."""
    return Begun(
        id=identity,
        text=text,
        user=place.user,
        channel=place.channel,
        thread=place.thread,
        response_url=place.response_url,
        cluster=cluster,
    )


def _place_of_click(body: Body) -> Place:
    container = body["container"]
    return Place(
        channel=container["channel_id"],
        user=body["user"]["id"],
        thread=container.get("thread_ts", ""),
        response_url=body.get("response_url", ""),
    )


def _meant_by_click(body: Body) -> tuple[str, str]:
    """What a button means, and in which cluster."""
    return block_kit.meant(str(body["actions"][0].get("value") or ""))


def _team(body: Body) -> str:
    """Whose member clicked: in a shared channel it can be another workspace's."""
    return str(body["user"].get("team_id") or (body.get("team") or {}).get("id") or "")
