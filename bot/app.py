"""Slack wiring and nothing else: which delivery leads to which function; without it nobody in Slack would be heard."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

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
from bot.in_slack import WORDS, Under
from bot.journal import Begun, Click, Job, Journal
from bot.language import ENGLISH, Language
from bot.line import WATCHES, Line, Turn
from bot.looked_up import looked_up, request_of
from bot.metrics import Metrics
from bot.place import Place, place_of, tell
from bot.reply import blocks
from bot.reply.blocks import escape
from bot.served import Desk, Desks, Served
from bot.slack import (
    Identity,
    NotInChannel,
    Slack,
    SlackGone,
    escape_but_mentions,
    others,
    web_client,
)
from bot.tracing import span
from bot.words import watches
from facts import say
from facts.logs import about
from fixes.claims import Claims
from fixes.request import Person, Phase
from fixes.store import StoreError

log = logging.getLogger(__name__)

A = TypeVar("A")
T = TypeVar("T")

COMMAND = "/calico"
DRAIN_S = 10.0
TOLD_S = 8.0
KEEPERS = 8  # threads: of those that write at the same time the disk makes one write
FORGETS_EVERY_S = 600.0
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
        self._line, self._watches = Line(), Line(WATCHES)
        client = web_client(settings.bot_token, settings.api_url, self.metrics.told_to_wait)
        self._slack = Slack(client, self.metrics.called)
        self.health = Health(journal, dead_after_s=GIVE_UP_AFTER_S)
        self.metrics.reads(
            connected=lambda: self.health.connected,
            heard_s=self.health.heard_s,
            waiting=lambda: self._line.waiting + self._watches.waiting,
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
        with ThreadPoolExecutor(KEEPERS, "journal") as self._keepers:
            async with self._slack.connected():
                await self._run(stop)

    async def _run(self, stop: asyncio.Event) -> None:
        me = await self._delivery.once_there(self._slack.who, stop)
        if me is None:
            return
        self._me: Identity = me
        members, outside = Cached(self._slack.members), Cached(self._outside)
        self._channel_is_shared = Cached(self._is_shared)
        self._desks = Desks(
            [
                Desk(
                    one,
                    self._slack,
                    self._journal,
                    metrics=self.metrics,
                    line=self._line,
                    members=members,
                    outside=outside,
                    bot_name=self._me.name,
                    flag=f" --cluster {one.name}" if len(self._served) > 1 else "",
                    language=self._language,
                )
                for one in self._served
            ],
            self._channels,
        )
        self._decisions = Decisions(
            self._slack, self._journal, self._desks, team=self._me.team, language=self._language
        )
        bolt = self._wire()
        always = [self._beside(desk.cards.run(), f"keeping the cards of {desk.name} true") for desk in self._desks]
        capturing = [self._beside(desk.capture_what_is_approved(), f"captures of {desk.name}") for desk in self._desks]
        always += [self._beside(desk.claims.know_itself(), f"the pod in {desk.name}") for desk in self._desks]
        always.append(self._beside(self._forget(), "forgetting what is done"))
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: set[asyncio.Task[None]] = set()  # whether other replicas answer
        try:
            for job in await asyncio.to_thread(self._journal.unfinished):
                self._spawn(self._resume(job), job.id)
            await self._delivery.serve(bolt, stop)
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

    async def _resume(self, job: Job | Click | Begun) -> None:
        """What was accepted before a restart."""
        if job.elsewhere:
            self._look_after(job)
            return
        log.info("answering %s, accepted before the restart", job.id)
        shown = job.ts if isinstance(job, Begun) else job.told if isinstance(job, Click) else job.answer
        work = self._anew(job)
        if job.event and not shown:  # else it was claimed before that
            await self._once(job.id, job.cluster, job.channel, work, job)
            return
        await work()
        if job.event:
            await self._nearest(job.cluster, job.channel).claims.answered(job.id)

    def _anew(self, job: Job | Click | Begun) -> Callable[[], Awaitable[None]]:
        """What goes on with it, whatever another process has done of it."""
        if isinstance(job, Begun):
            return partial(self._broken_off, job)
        if isinstance(job, Click):
            return partial(self._decisions.carry_out, job, again=True)
        return partial(self._answer_in_turn, job, silent=True)

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

    async def _note(self, kept: Job | Click | Begun) -> None:
        """A disk that refuses keeps nobody from an answer."""
        try:
            await asyncio.to_thread(self._journal.update, kept)
        except OSError as error:
            log.warning("after a kill %s would not be known: %s", kept.id, error)

    def _beside(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        """As long as the bot runs."""
        return asyncio.ensure_future(self._guard(work, what))

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
        app.action(blocks.APPROVE)(self._on_approve)
        app.action(blocks.REJECT)(self._on_reject)
        app.view(blocks.REASON)(self._on_reason)
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
        if await self._first(identity):
            telling = partial(self._tell, self._language(refusal), place)
            self._spawn(self._once(identity, "", place.channel, telling) if event else telling(), "a refusal")
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
            self._spawn(self._note_stranger(f"{COMMAND} {body.get('text') or ''}", place), "a stranger's command")
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
            return
        if said.word != "why":
            begun = Begun(
                id=identity,
                text=str(body.get("text") or ""),
                user=place.user,
                channel=place.channel,
                response_url=place.response_url,
                cluster=desk.name,
            )
            if await self._accept(begun) is False:
                await ack()
                return
            work = self._spawn(self._say(begun), f"{COMMAND} {said.word}")
            await asyncio.wait({work}, timeout=ACKNOWLEDGED_S)  # some words take long
            await ack()
            return
        job = Job(
            id=identity,
            words=" ".join(said.rest),
            user=place.user,
            channel=place.channel,
            response_url=place.response_url,
            cluster=desk.name,
        )
        accepted = await self._accept(job)
        if accepted is None:
            await ack(text=self._language(say(NOT_KEPT)))
            return
        if not accepted:
            await ack()
            return
        turn = self._join(job)
        await (ack(text=self._in_turn(turn)) if turn.before else ack())
        self._spawn(self._answer(job, turn), f"question {job.id}")

    async def _accept_mention(self, body: Body, context: dict[str, Any], next: Callable[[], Awaitable[None]]) -> None:
        """Before Bolt acknowledges the event, what it asks for is on disk."""
        event, identity = body["event"], str(body["event_id"])
        team = event.get("user_team") or event.get("team") or self._me.team
        if not event.get("bot_id") and event.get("user"):
            place = Place(channel=event["channel"], user=event["user"], thread=event.get("thread_ts", ""))
            text = str(event.get("text") or "")
            if team == self._me.team:
                context["work"] = await self._mentioned(identity, text, str(event["ts"]), place)
            elif await self._first(identity):
                context["work"] = self._once(identity, "", place.channel, partial(self._turn_away, text, place))
        await next()

    async def _once(
        self,
        identity: str,
        cluster: str,
        channel: str,
        work: Callable[[], Awaitable[None]],
        kept: Job | Click | Begun | None = None,
    ) -> None:
        """Of the replicas to which an event was delivered one does the work. cluster, channel: which one says so."""
        claims = self._nearest(cluster, channel).claims
        if await claims.take(identity):
            await work()
            await claims.answered(identity)
            return
        log.info("%s is answered by another replica", identity)
        if kept is not None:
            kept = msgspec.structs.replace(kept, elsewhere=True)
            await self._note(kept)
            self._look_after(kept)

    def _look_after(self, kept: Job | Click | Begun) -> None:
        """Whether another replica answers it, also after a restart of this one."""
        looking = self._beside(self._take_over(kept), f"whether {kept.id} is answered")
        self._looking.add(looking)
        looking.add_done_callback(self._looking.discard)

    async def _take_over(self, kept: Job | Click | Begun) -> None:
        """Where the replica that claimed it is no more."""
        claims = self._nearest(kept.cluster, kept.channel).claims
        if not await claims.left(kept.id):
            await asyncio.to_thread(self._journal.finish, kept)
            return
        log.warning("%s was left by another replica, and is answered here", kept.id)
        kept = msgspec.structs.replace(kept, elsewhere=False)
        await self._note(kept)
        self._spawn(self._taken_over(kept, claims), kept.id)

    async def _taken_over(self, kept: Job | Click | Begun, claims: Claims) -> None:
        await self._anew(kept)()
        await claims.answered(kept.id)

    def _nearest(self, cluster: str, channel: str) -> Desk:
        """Where nobody serves it that is to be told once, too."""
        try:
            return self._desks.at(cluster, channel)
        except UserError:
            return self._desks.at("", "")

    async def _turn_away(self, text: str, place: Place) -> None:
        """Another workspace's member, who mentioned the bot."""
        await self._note_stranger(text, place)
        await self._tell(self._language(say(OWN_ONLY)), place)

    async def _note_stranger(self, text: str, place: Place) -> None:
        """What a stranger wrote is a denial in the trail, of the request that it names."""
        name = next(filter(None, map(meant, text.split())), "")
        desk = await self._desks.of(name, place.channel)
        await desk.approvals.note_refusal(name, f"{text[:100]}: {OWN_ONLY}", Person(id=place.user, via="slack"))

    async def _outside(self, user: str) -> str:
        return await self._slack.outside(user, self._me.team)

    async def _mentioned(self, identity: str, text: str, ts: str, place: Place) -> Coroutine[Any, Any, None] | None:
        """What is to be done about a mention; None when it was done before."""
        begun = Begun(id=identity, text=text, user=place.user, channel=place.channel, thread=place.thread, event=True)
        try:
            said = speech.understand(text)
            desk = self._desks.at(said.cluster, place.channel)
        except UserError:
            return await self._begun(begun)
        if said.word == "why":
            job = Job(
                id=identity,
                words=" ".join(said.rest),
                user=place.user,
                channel=place.channel,
                thread=place.thread or ts,
                cluster=desk.name,
                event=True,
            )
            accepted = await self._accept(job)
            if accepted is None:
                return self._tell(self._language(say(NOT_KEPT)), place)
            if not accepted:
                return None
            return self._once(identity, job.cluster, place.channel, partial(self._answer_in_turn, job), job)
        if click := self._decisions.of_words(said, place, identity):
            click = msgspec.structs.replace(click, event=True)
            accepted = await self._accept(click)
            if accepted is None:
                return self._tell(self._language(say(CLICK_NOT_KEPT)), place)
            if not accepted:
                return None
            return self._once(identity, click.cluster, place.channel, partial(self._decisions.carry_out, click), click)
        thread = place.thread or (ts if said.word in ("capture", "policy", *WORDS) else "")
        return await self._begun(msgspec.structs.replace(begun, thread=thread, cluster=desk.name))

    async def _begun(self, begun: Begun) -> Coroutine[Any, Any, None] | None:
        """As _mentioned, of what is neither a question nor a decision."""
        if await self._accept(begun) is False:
            return None
        return self._once(begun.id, begun.cluster, begun.channel, partial(self._say, begun), begun)

    async def _on_mention(self, context: dict[str, Any]) -> None:
        if work := context.get("work"):
            self._spawn(work, "a mention")

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
        await asyncio.wait({self._spawn(self._ask_reason(body), "a rejection")})
        await ack()

    async def _on_reason(self, ack: AsyncAck, body: Body) -> None:
        view = body["view"]
        # Forms of before there were several clusters do not say which one.
        name, channel, ts, thread, *clusters = msgspec.json.decode(view["private_metadata"], type=list[str])
        entered = view["state"]["values"][blocks.REASON][blocks.REASON].get("value") or ""
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
        accepted = await self._accept(click)
        if accepted is None:
            self._spawn(self._tell(self._language(say(CLICK_NOT_KEPT)), place_of(click)), f"click {click.id}")
        await ack()
        if accepted:
            self._spawn(self._decisions.carry_out(click), f"click {click.id}")

    async def _on_choose(self, ack: AsyncAck, body: Body) -> None:
        """One of the names that could have been meant: the same message becomes the answer to that."""
        await ack()
        place, container = _place_of_click(body), body["container"]
        if _team(body) != self._me.team:
            await self._tell(self._language(say(OWN_ONLY)), place)
            return
        words, cluster = _meant_by_click(body)
        try:
            said = speech.understand(f"why {words}")
            desk = self._desks.at(cluster, place.channel)
        except UserError as error:
            self._spawn(self._tell(escape(self._language(error.sentence)), place), "a sentence")
            return
        job = Job(
            id=f"choice-{container['message_ts']}-{' '.join(said.rest)}",
            words=" ".join(said.rest),
            user=place.user,
            channel=place.channel,
            thread=place.thread,
            response_url=place.response_url,
            answer=container["message_ts"],
            cluster=desk.name,
        )
        if await self._accept(job):
            self._spawn(self._answer_in_turn(job), f"question {job.id}")

    async def _on_error(self, error: Exception) -> None:
        log.error("a delivery from Slack could not be handled", exc_info=error)

    # -- what they lead to ------------------------------------------------------------------------------------------

    async def _accept(self, job: Job | Click | Begun) -> bool | None:
        """True: on disk now. False: it had been accepted before. None: it cannot be kept, so no question or decision is
        accepted."""
        try:
            return await self._on_disk(self._journal.accept, job)
        except OSError as error:
            log.error("%s cannot be kept: %s", job.id, error)
            return None

    async def _on_disk(self, keep: Callable[[A], T], what: A) -> T:
        """By threads that do nothing else: to be heard takes the disk, and not the end of somebody else's answer."""
        return await asyncio.get_running_loop().run_in_executor(self._keepers, keep, what)

    def _join(self, job: Job) -> Turn:
        """Behind those who came before, but that nobody waits for who watches a flow."""
        return (self._watches if watches(job.words) else self._line).join()

    def _in_turn(self, turn: Turn) -> str:
        """What is said to who has to wait."""
        return self._language(
            say("I have your question. It is answered in its turn: {count} are before it.", count=turn.before)
        )

    async def _answer_in_turn(self, job: Job, *, silent: bool = False) -> None:
        """For what is acknowledged without words. silent: nobody is told how many are before."""
        turn = self._join(job)
        if turn.before and not silent:
            place = Place(channel=job.channel, user=job.user, thread=job.thread, response_url=job.response_url)
            self._spawn(self._tell(self._in_turn(turn), place), "how many are before a question")
        await self._answer(job, turn)

    async def _answer(self, job: Job, turn: Turn) -> None:
        with about(question=job.id), span("question", id=job.id, cluster=job.cluster):
            try:
                await self._answered(job, turn)
            finally:
                turn.leave()

    async def _answered(self, job: Job, turn: Turn) -> None:
        try:
            desk = self._desks.at(job.cluster, job.channel)
        except UserError as error:  # it was served before a restart
            place = Place(
                channel=job.channel, user=job.user, thread=job.thread or job.answer, response_url=job.response_url
            )
            await self._tell(escape(self._language(error.sentence)), place)
            await asyncio.to_thread(self._journal.finish, job)
            return
        await desk.answer(job, turn)

    async def _first(self, identity: str) -> bool:
        """Whether it was not heard before. Where the disk cannot tell it is answered: twice is better than never."""
        try:
            return await self._on_disk(self._journal.first, identity)
        except OSError as error:
            log.error("a second delivery of %s would not be known: %s", identity, error)
            return True

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
        await self._tell(self._language(refusal), place)
        stranger = Person(id=place.user, via="slack")
        await desk.approvals.write_down(name, to, stranger, Decision(False, refusal), shown)
        return None

    async def _ask_reason(self, body: Body) -> None:
        """Who may not reject is told at once. Who may is asked why, and judged again when the answer comes."""
        try:
            clicked = await self._clicked(body, Phase.REJECTED)
        except UserError as error:
            await self._tell(escape(self._language(error.sentence)), _place_of_click(body))
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
            await self._tell(blocks.of_cluster(escape(error.sentence), desk.name), place)
            return
        if refused is not None:
            why = escape_but_mentions(self._language(refused.sentence))
            await self._tell(blocks.of_cluster(why, desk.name), place)
            if refused.request is not None:
                self._spawn(desk.cards.draw(refused.request), "a card")
            return
        about = msgspec.json.encode([name, *shown, place.thread, desk.name]).decode()
        try:
            form = blocks.reason_form(name, about, REASON_MAX, self._language)
            await self._slack.call(self._slack.client.views_open, trigger_id=body["trigger_id"], view=form)
        except UserError as error:
            words = say(
                "{why} So you were not asked for a reason, and nothing was changed. In words: {command}",
                why=error.sentence,
                command=f"{COMMAND} reject {name}",
            )
            await self._tell(escape(self._language(words)), place)

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
        place = Place(channel=begun.channel, user=begun.user, thread=begun.thread, response_url=begun.response_url)
        try:
            said = speech.understand(begun.text)
            desk = self._desks.at(begun.cluster or said.cluster, begun.channel)
        except UserError as error:
            await self._tell(escape(self._language(error.sentence)), place)
            return
        if said.word == "help":
            await self._tell(escape(speech.help_text()), place)
        elif said.word in ("fixes", "audit"):
            try:
                desk = await self._desks.of(request_of(said), place.channel, said.cluster)
                lines = await looked_up(said, place, desk, self._slack, self._language)
            except (StoreError, UserError) as error:
                lines = escape(self._language(error.sentence))
            await self._tell(blocks.of_cluster(lines, desk.name), place)
        elif said.word == "capture":
            await desk.captures.take(said.rest, under)
        elif said.word in WORDS:
            await desk.answers.answer(said.word, said.rest, under, written=said.written)
        elif said.word == "policy":
            await desk.policies.answer(
                said.rest,
                channel=place.channel,
                user=place.user,
                thread=place.thread,
                response_url=place.response_url,
            )
        elif not said.rest:
            which = say("Which one? {usage}", usage=speech.HELP[said.word])
            await self._tell(escape(self._language(which)), place)
        else:
            one = say("One at a time: {usage}", usage=speech.HELP[said.word])
            await self._tell(escape(self._language(one)), place)

    async def _tell(self, text: str, place: Place) -> None:
        await tell(self._slack, text, place)

    def _spawn(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        task = asyncio.ensure_future(self._guard(work, what))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guard(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Nothing that goes wrong in one piece of work may end the others, or end unseen."""
        try:
            await work
        except UserError as error:
            log.warning("%s: %s", what, error.sentence)
        except Exception:
            log.exception("%s broke", what)


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
    return blocks.meant(str(body["actions"][0].get("value") or ""))


def _team(body: Body) -> str:
    """Whose member clicked: in a shared channel it can be another workspace's."""
    return str(body["user"].get("team_id") or (body.get("team") or {}).get("id") or "")
