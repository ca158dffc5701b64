"""The bot in a local Slack, over both transports: a question answered in place, nothing changed by a wrong click."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import aiohttp
import msgspec
import pytest

from bot.app import App
from bot.captures import Capturing
from bot.delivery import SlackSettings
from bot.errors import UserError
from bot.in_slack import Opened
from bot.investigate import Investigation, Progress
from bot.journal import Journal
from bot.language import ENGLISH, Language, language
from bot.policies import Judge
from bot.reply.block_kit import Message
from bot.second_opinion import SecondOpinion
from bot.served import Served
from bot.slack import NotInChannel, Slack, web_client
from bot.words import Asked
from fixes.approvers import Approvers
from fixes.request import FixRequest, Phase
from fixes.store import FixStore
from lab.slack import LocalSlack
from lab.slack.workspace import View
from tests.answers import well, wrong_mac
from tests.deployed import ADMINISTRATOR, BOT
from tests.fix_cluster import FixCluster, fix_cluster
from tests.programs import Program, Programs

ROOM = "incident"
QUESTION = "/calico why shop/cart shop/db 5432/tcp"
HEADLINE = "Wrong MAC for the peer's tunnel address"
APPROVERS = Approvers(frozenset({"S0NETOPS"}))  # ana and bo


class Answers:
    """Stands in for the investigation: what it answers, what it was asked, and a gate to hold it back."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Investigation | Exception = wrong_mac()
        self.steps: list[str] = []
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(
        self, words: Sequence[str], *, asked_by: str = "", progress: Progress | None = None
    ) -> Investigation:
        self.asked.append(" ".join(words))
        for step in self.steps:
            if progress:
                await progress(step)
        await self.go.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return msgspec.structs.replace(self.answer, asked=" ".join(words), asked_by=asked_by)


async def no_cluster(asked: Asked) -> SecondOpinion:
    """What is said of policies where a test is about something else."""
    raise UserError(f"There is no cluster to ask about {asked}.")


def no_answers(*_: object) -> NoReturn:
    """What a command may use where a test asks none."""
    raise AssertionError("no command of the runbook is asked here")


class Room:
    """A local Slack with the bot in it, and the cluster behind the bot."""

    def __init__(
        self, mode: str, slack: LocalSlack, cluster: FixCluster, store: FixStore, state: Path, *, shared: str = ""
    ) -> None:
        self.mode = mode
        self.shared = shared
        self.slack = slack
        self.cluster = cluster
        self.store = store
        self.state = state
        self.answers = Answers()
        self.capturing: Capturing | None = None
        self.judge: Judge = no_cluster
        self.context: Opened = no_answers
        self.approvers = APPROVERS

    def clusters(self, store: FixStore) -> list[Served]:
        """What the bot serves. store: its own."""
        return [
            Served(
                name="test",
                investigate=self.answers,
                judge=self.judge,
                context=self.context,
                store=store,
                approvers=self.approvers,
                capturing=self.capturing,
            )
        ]

    @contextlib.asynccontextmanager
    async def bot(self, language: Language = ENGLISH) -> AsyncGenerator[App]:
        """With the rights of its account, and the clock of the test."""
        own = self.cluster.store(BOT, now=lambda: self.store.now())
        async with own as store, self._running(store, language) as app:
            yield app

    @contextlib.asynccontextmanager
    async def _running(self, store: FixStore, language: Language) -> AsyncGenerator[App]:
        app = App(
            SlackSettings(
                bot_token=self.slack.bot_token,
                app_token=self.slack.app_token,
                signing_secret=self.slack.signing_secret,
                mode=self.mode,
                listen=("127.0.0.1", 0),
                api_url=self.slack.base_url,
                shared=self.shared,
            ),
            self.clusters(store),
            journal=Journal(self.state),
            language=language,
        )
        stop = asyncio.Event()
        running = asyncio.ensure_future(app.run(stop))
        ready = asyncio.ensure_future(app.ready.wait())
        await asyncio.wait({running, ready}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if running.done():
            running.result()
        if self.mode == "http":
            assert app.address is not None
            self.slack.request_url = f"http://127.0.0.1:{app.address[1]}/slack/events"
        else:
            await self.slack.wait_for(lambda: self.slack.connections > 0)
        try:
            yield app
        finally:
            stop.set()
            await asyncio.wait_for(running, 15)

    async def ask(self, text: str = QUESTION, user: str = "ana") -> Any:
        delivery = await self.slack.slash(user, ROOM, text)
        assert delivery.result == "ok"
        return delivery

    async def form(self, user: str) -> View:
        """The form that is open before this user."""
        views = self.slack.workspace.open_views
        return (await self.slack.wait_for(lambda: views(self.slack.user_id(user))))[0]

    def posted(self, text: str, thread: str | None = None) -> dict[str, Any] | None:
        return next((one for one in self.slack.messages(ROOM, thread) if text in _all_text(one)), None)

    def told(self, user: str, thread: str | None = None) -> list[str]:
        """What only this user was told."""
        public = {one["ts"] for one in self.slack.messages(ROOM, thread)}
        seen = self.slack.messages(ROOM, thread, viewer=user)
        return [_all_text(one) for one in seen if one["ts"] not in public]

    async def whisper(self, user: str, text: str, thread: str | None = None) -> str:
        return await self.slack.wait_for(lambda: next((one for one in self.told(user, thread) if text in one), ""))

    async def answered(self, text: str = HEADLINE) -> dict[str, Any]:
        """The message of the question once it holds the answer."""
        found = await self.slack.wait_for(lambda: self.posted(text))
        assert found is not None
        return found

    async def card(self) -> tuple[FixRequest, str, str]:
        """The request, with thread and ts of its card, once it is placed."""
        parent = await self.answered()
        card = await self.slack.wait_for(lambda: self.posted("Approve", parent["ts"]))
        assert card is not None
        async with asyncio.timeout(10):
            async for _, request in self.store.watch():
                if request.status.slack and request.status.slack.ts == card["ts"]:
                    return request, parent["ts"], card["ts"]
        raise AssertionError

    def buttons(self, thread: str, ts: str) -> list[str]:
        card = next(one for one in self.slack.messages(ROOM, thread) if one["ts"] == ts)
        return [
            element["action_id"]
            for block in card["blocks"]
            for element in block.get("elements", ())
            if "action_id" in element
        ]


def _all_text(message: dict[str, Any]) -> str:
    """Text and blocks of a message, as one string."""
    found: list[str] = [str(message.get("text", ""))]

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if key == "text" and isinstance(item, str):
                    found.append(item)
                else:
                    walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(message.get("blocks", []))
    return "\n".join(found)


@pytest.fixture(params=["socket", "http"])
async def room(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Room]:
    async with LocalSlack() as slack, fix_cluster(tmp_path) as cluster, cluster.store(ADMINISTRATOR) as store:
        yield Room(request.param, slack, cluster, store, tmp_path / "state")
        refused = [(call.method, call.error) for call in slack.calls if call.error and call.error not in EXPECTED]
        assert not refused, "the bot sent what Slack does not take"


EXPECTED = {"not_in_channel", "ratelimited", "internal_error", "used_url"}


async def test_the_question_becomes_its_answer(room: Room) -> None:
    async with room.bot():
        room.answers.go.clear()
        room.answers.steps = ["looking up shop/cart and shop/db", "asking node-a and node-b", "judging"]
        await room.ask()
        line = await room.slack.wait_for(lambda: room.posted("looking"))
        assert line is not None
        assert "<@U0ANA> asked: why `shop/cart shop/db 5432/tcp`" in _all_text(line)
        assert "[test]" in _all_text(line)
        await room.slack.wait_for(lambda: room.posted("judging"))
        updates = [call for call in room.slack.calls if call.method == "chat.update"]
        assert len(updates) == 1, "three steps within a second are one update"
        room.answers.go.set()
        request, thread, _ = await room.card()
        assert thread == line["ts"], "the question's own message becomes the answer"
        assert [one["ts"] for one in room.slack.messages(ROOM)] == [thread]
        await room.slack.wait_for(lambda: len(room.slack.messages(ROOM, thread)) == 5)
        replies = room.slack.messages(ROOM, thread)
        assert [reply["text"].partition(":")[0] for reply in replies[:2]] == ["The path", "Evidence"]
        (drawn,) = replies[4]["files"]
        assert (drawn["mimetype"], drawn["title"]) == ("image/png", "The path: shop/cart shop/db 5432/tcp")
        assert "last good source node, first bad source tunnel" in drawn["alt_txt"]
        assert (request.status.phase, request.spec.requested_by.id) == (Phase.PENDING, "U0ANA")
        assert room.answers.asked == ["shop/cart shop/db 5432/tcp"]


async def test_a_picture_slack_does_not_take_costs_nothing_else(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    room.slack.faults.fail("files.getUploadURLExternal", "500", times=9)
    async with room.bot():
        await room.ask()
        _, thread, _ = await room.card()
        await room.slack.wait_for(lambda: len(room.slack.messages(ROOM, thread)) == 4)
        assert not any(reply.get("files") for reply in room.slack.messages(ROOM, thread))
    assert "was not uploaded" in caplog.text


async def test_a_bot_of_another_language_answers_and_asks_for_approval_in_it(room: Room) -> None:
    async with room.bot(language("zh")):
        await room.ask()
        parent = await room.answered("对端隧道地址的 MAC 错误")
        assert "<@U0ANA> 提问：why `shop/cart shop/db 5432/tcp`" in _all_text(parent)
        card = await room.slack.wait_for(lambda: room.posted("等待批准", parent["ts"]))
        assert card is not None
        assert room.buttons(parent["ts"], card["ts"]) == ["fix_approve", "fix_reject"]
        await room.slack.click("bo", ROOM, card["ts"], "fix_reject")
        form = await room.form("bo")
        assert form.content["title"]["text"].startswith("拒绝 fx-")
        await room.slack.submit_view("bo", form.id, {"fix_reason": "变更冻结"})
        assert await room.slack.wait_for(lambda: room.posted("由 <@U0BO> 拒绝", parent["ts"]))


async def test_a_second_person_approves_and_the_thread_says_verified(room: Room) -> None:
    async with room.bot():
        await room.ask()
        request, thread, ts = await room.card()
        assert room.buttons(thread, ts) == ["fix_approve", "fix_reject"]
        clicked = await room.slack.click("bo", ROOM, ts, "fix_approve")
        assert clicked.result == "ok"  # acknowledged in the time Slack allows
        await room.slack.wait_for(lambda: room.buttons(thread, ts) == [])
        await room.slack.wait_for(lambda: room.posted("approved, about to be done", thread))
        now = await room.store.get(request.name)
        assert now.status.phase is Phase.APPROVED
        assert now.status.approved_by is not None
        assert (now.status.approved_by.id, now.status.approved_by.entry) == ("U0BO", "S0NETOPS")
        room.answers.answer = well()
        await room.store.transition(request.name, Phase.RUNNING)
        done = "10.244.218.64 on vxlan.calico is 66:89:3a:22:7a:ac now."
        await room.store.transition(request.name, Phase.VERIFIED, message=done)
        said = await room.slack.wait_for(lambda: room.posted(":white_check_mark: verified: 10.244.218.64", thread))
        assert said is not None
        assert "is 66:89:3a:22:7a:ac now; " in _all_text(said)
        assert "probes answer" in _all_text(said)
        card = await room.slack.wait_for(lambda: room.posted("second look", thread))
        assert card is not None
        assert card["ts"] == ts
        assert room.answers.asked == ["shop/cart shop/db 5432/tcp"] * 2
        look = (await room.store.get(request.name)).status.second_look
        assert look is not None
        assert look.verdict == "healthy"


async def test_a_fix_that_did_not_help_is_told(room: Room) -> None:
    async with room.bot():
        await room.ask()
        request, thread, _ = await room.card()
        await room.slack.click("bo", ROOM, (await room.card())[2], "fix_approve")
        await room.slack.wait_for(lambda: room.posted("approved", thread))
        await room.store.transition(request.name, Phase.RUNNING)
        await room.store.transition(request.name, Phase.VERIFIED, message="The entry is right.")
        said = await room.slack.wait_for(lambda: room.posted(":x: The entry is right. But", thread))
        assert said is not None
        assert "still broken" in _all_text(said)
        assert HEADLINE in _all_text(said)


@pytest.mark.parametrize("action", ["fix_approve", "fix_reject"])
async def test_clicks_that_do_not_count_change_nothing_and_are_told(room: Room, action: str) -> None:
    async with room.bot():
        await room.ask()
        request, thread, ts = await room.card()
        if action == "fix_approve":
            await room.slack.click("ana", ROOM, ts, action)
            await room.whisper("ana", "somebody else has to approve", thread)
        await room.slack.click("cleo", ROOM, ts, action)
        await room.whisper("cleo", "You may not", thread)
        await room.slack.click("eve", ROOM, ts, action)
        await room.whisper("eve", "another workspace", thread)
        assert (await room.store.get(request.name)).resource_version == request.resource_version
        assert room.buttons(thread, ts) == ["fix_approve", "fix_reject"], "who may decide still can"


async def test_an_expired_click_changes_nothing_and_the_card_says_so(room: Room) -> None:
    async with room.bot():
        await room.ask()
        request, thread, ts = await room.card()
        room.store.now = lambda: datetime.now(UTC) + timedelta(minutes=16)
        await room.slack.click("bo", ROOM, ts, "fix_approve")
        await room.whisper("bo", "expired", thread)
        await room.slack.wait_for(lambda: room.posted("nothing was changed", thread))
        now = await room.store.get(request.name)
        assert (now.status.phase, now.status.approved_by) == (Phase.EXPIRED, None)
        assert room.buttons(thread, ts) == []


async def test_of_clicks_at_once_one_counts_and_the_others_are_told(room: Room) -> None:
    async with room.bot():
        await room.ask()
        request, thread, ts = await room.card()
        clicks = [room.slack.click("bo", ROOM, ts, "fix_approve") for _ in range(6)]
        deliveries = await asyncio.gather(*clicks)
        assert all(one.result == "ok" for one in deliveries)
        await room.slack.wait_for(
            lambda: len([one for one in room.told("bo", thread) if "already approved" in one]) == 5
        )
        history = (await room.store.get(request.name)).status.history
        assert [event.phase for event in history] == [Phase.APPROVED]


async def test_a_rejection_is_said_on_the_card(room: Room) -> None:
    async with room.bot():
        await room.ask()
        request, thread, ts = await room.card()
        await room.slack.click("bo", ROOM, ts, "fix_reject")
        form = await room.form("bo")
        assert (await room.slack.submit_view("bo", form.id, {})).result != "ok", "a reason is asked for, not offered"
        await room.slack.submit_view("bo", form.id, {"fix_reason": "in a change freeze <!channel>"})
        card = await room.slack.wait_for(lambda: room.posted("rejected", thread))
        assert card is not None
        assert "rejected by <@U0BO>" in _all_text(card)
        assert "in a change freeze &lt;!channel&gt;" in _all_text(card)
        assert room.buttons(thread, ts) == []
        assert (await room.store.get(request.name)).status.phase is Phase.REJECTED


async def test_words_decide_like_clicks(room: Room) -> None:
    async with room.bot():
        await room.ask()
        request, thread, ts = await room.card()
        await room.ask("/calico fixes", "cleo")
        await room.whisper("cleo", f"{request.name}  Replace the neighbor")
        await room.ask(f"/calico approve {request.name}", "cleo")
        await room.whisper("cleo", "You may not approve")
        await room.ask("/calico approve", "bo")
        await room.whisper("bo", "Which one?")
        await room.ask(f"/calico reject {request.name} change freeze", "bo")
        await room.whisper("bo", f"{request.name} is rejected")
        await room.slack.wait_for(lambda: room.posted("change freeze", thread))
        assert (await room.store.get(request.name)).status.message == "change freeze"
        assert room.buttons(thread, ts) == []


async def test_a_card_is_true_again_after_a_restart(room: Room) -> None:
    async with room.bot():
        await room.ask()
        request, thread, ts = await room.card()
    await room.store.transition(request.name, Phase.CANCELLED, message="by hand")
    assert room.buttons(thread, ts) == ["fix_approve", "fix_reject"]
    async with room.bot():
        await room.slack.wait_for(lambda: room.posted("cancelled", thread))
        assert room.buttons(thread, ts) == []


async def test_the_same_fault_asked_again_points_to_its_card(room: Room) -> None:
    async with room.bot():
        await room.ask()
        request, _, ts = await room.card()
        await room.ask(user="bo")
        second = await room.slack.wait_for(
            lambda: next((one for one in room.slack.messages(ROOM) if "<@U0BO> asked" in _all_text(one)), None)
        )
        assert second is not None
        there = second["ts"]
        told = await room.slack.wait_for(lambda: room.posted("was asked for already", there))
        assert told is not None
        assert request.name in _all_text(told)
        assert ts.replace(".", "") in _all_text(told), "a link to the card"
        assert len(await room.store.all()) == 1


async def test_a_mention_in_a_thread_is_answered_there_and_once(room: Room) -> None:
    async with room.bot():
        await room.slack.say("ana", ROOM, "shop is broken")
        (parent,) = room.slack.messages(ROOM)
        room.slack.faults.deliver_twice = 1
        await room.slack.mention("ana", ROOM, "@calico why can't shop/cart reach shop/db on 5432?", parent["ts"])
        await room.slack.wait_for(lambda: room.posted(HEADLINE, parent["ts"]))
        await room.slack.wait_for(lambda: room.posted("things checked and well", parent["ts"]))
        assert room.answers.asked == ["shop/cart shop/db 5432"]
        assert len([one for one in room.slack.deliveries if one.kind == "events_api"]) == 2
        await room.slack.mention("ana", ROOM, "@calico what is the weather", parent["ts"])
        await room.whisper("ana", "I do not know 'what'", parent["ts"])
        await room.slack.mention("eve", ROOM, "@calico why shop/cart shop/db", parent["ts"])
        assert len(room.answers.asked) == 1, "strangers get no cluster data"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("help", "why POD|NODE POD|SERVICE|NODE|IP"),
        ("", "why POD|NODE POD|SERVICE|NODE|IP"),
        ("wyh shop/cart shop/db", "Did you mean `why shop/cart shop/db`?"),
        ("why shop/cart", "only 'shop/cart' was said"),
        ("flush <!channel>", "I do not know"),
        ("approve fx-doesnotexist", "is not the name of a fix request"),
        ("reject fx-aaaaaaaa", "I do not know a fix request fx-aaaaaaaa"),
        ("fixes", "There are no fix requests."),
    ],
)
async def test_other_words_are_answered_to_one_person(room: Room, words: str, sentence: str) -> None:
    async with room.bot():
        await room.ask(f"/calico {words}")
        said = await room.whisper("ana", sentence)
        assert "<!channel>" not in said
        assert room.slack.messages(ROOM) == []
        assert room.answers.asked == []


async def test_a_question_that_cannot_be_answered_says_why_in_its_place(room: Room) -> None:
    async with room.bot():
        room.answers.answer = UserError(
            "shop/db does not exist; pods like it: shop/db-0 <&>", word="shop/db", choices=("shop/db-0", "shop/db-1")
        )
        await room.ask()
        line = await room.answered("does not exist")
        assert "<@U0ANA> asked" in _all_text(line)
        assert "shop/db-0 &lt;&amp;&gt;" in _all_text(line)
        room.answers.answer = well()
        await room.slack.click("bo", ROOM, line["ts"], "why_choose:0")
        now = await room.answered("as it should be")
        assert room.answers.asked[-1] == "shop/cart shop/db-0 5432/tcp"
        assert now["ts"] == line["ts"]


async def test_something_broken_in_the_bot_is_told_too(room: Room) -> None:
    async with room.bot():
        room.answers.answer = RuntimeError("boom")
        await room.ask()
        line = await room.answered("something in me broke")
        assert "boom" not in _all_text(line)
        room.answers.answer = well()
        await room.ask(user="bo")
        await room.slack.wait_for(lambda: len(room.slack.messages(ROOM)) == 2)


async def test_where_the_bot_is_no_member_it_says_how_to_invite_it(room: Room) -> None:
    async with room.bot():
        delivery = await room.slack.slash("ana", "general", QUESTION)
        assert delivery.result == "ok"
        told = await room.slack.wait_for(lambda: room.slack.messages("general", viewer="ana"))
        assert "/invite @calico" in _all_text(told[0])
        assert room.answers.asked == []
    assert Journal(room.state).unfinished() == []


async def test_rate_limits_and_broken_answers_are_waited_out(room: Room) -> None:
    async with room.bot():
        room.slack.faults.fail("chat.postMessage", "429", retry_after=1)
        room.slack.faults.fail("chat.update", "500")
        await room.ask()
        await room.card()


async def test_blocks_that_slack_refuses_are_sent_as_text(caplog: pytest.LogCaptureFixture) -> None:
    async with LocalSlack() as local:
        slack = Slack(web_client(local.bot_token, local.base_url))
        channel = local.channel_id(ROOM)
        wrong = Message(text="the answer", blocks=[{"type": "section", "text": {"type": "mrkdwn", "text": ""}}])
        ts = await slack.post(channel, wrong)
        (message,) = local.messages(ROOM)
        assert (message["text"], message.get("blocks")) == ("the answer", None)
        assert "/blocks/0" in caplog.text, "the log says where"
        await slack.update(channel, ts, wrong)
        with pytest.raises(NotInChannel):
            await slack.post(local.channel_id("general"), wrong)


async def test_a_token_slack_does_not_know_is_one_sentence(tmp_path: Path) -> None:
    async with LocalSlack() as local, fix_cluster(tmp_path) as cluster, cluster.store(ADMINISTRATOR) as store:
        room = Room("socket", local, cluster, store, tmp_path / "state")
        right = local.bot_token
        for bot_token, app_token in (("xoxb-wrong", local.app_token), (right, "xapp-wrong")):
            app = App(
                SlackSettings(bot_token=bot_token, app_token=app_token, api_url=local.base_url),
                room.clusters(room.store),
                journal=Journal(None),
            )
            with pytest.raises(UserError, match="does not accept the token"):
                await asyncio.wait_for(app.run(asyncio.Event()), 10)


async def test_a_socket_that_slack_renews_loses_no_question(tmp_path: Path) -> None:
    async with LocalSlack() as local, fix_cluster(tmp_path) as cluster, cluster.store(ADMINISTRATOR) as store:
        room = Room("socket", local, cluster, store, tmp_path / "state")
        async with room.bot():
            await local.disconnect()
            await local.wait_for(lambda: local.connections > 0)
            await room.ask()
            await room.card()


async def test_http_that_is_not_from_slack_ends_at_the_door(tmp_path: Path) -> None:
    async with LocalSlack() as local, fix_cluster(tmp_path) as cluster, cluster.store(ADMINISTRATOR) as store:
        room = Room("http", local, cluster, store, tmp_path / "state")
        body = "command=%2Fcalico&text=why+a+b&ssl_check=1"
        now = str(int(datetime.now(UTC).timestamp()))
        async with room.bot(), aiohttp.ClientSession() as client:
            for stamp, signature in (
                (now, "v0=" + "0" * 64),
                ("abc", "v0=" + "0" * 64),
                (now, "v0=\u00e9"),
                (now, ""),
                ("", ""),
            ):
                headers = {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": signature}
                async with client.post(local.request_url, data=body, headers=headers) as answer:
                    assert answer.status == 401
            async with client.get(local.request_url.replace("/slack/events", "/healthz")) as answer:
                assert await answer.text() == "ok"
            assert room.answers.asked == []


@pytest.mark.parametrize("mode", ["socket", "http"])
async def test_a_killed_bot_answers_after_its_restart_in_the_same_message(tmp_path: Path, mode: str) -> None:
    async with LocalSlack() as local, fix_cluster(tmp_path) as cluster:
        hold = tmp_path / "hold"
        hold.touch()
        room = Room(mode, local, cluster, None, tmp_path / "state")  # type: ignore[arg-type]  # the bot has its own
        async with bot_process(room, hold, signal.SIGKILL) as bot:
            await room.ask()
            assert await asyncio.wait_for(bot.readline(), 10) == b"looking\n"
            await local.wait_for(lambda: room.posted("looking"))
        hold.unlink()
        (before,) = local.messages(ROOM)
        assert [job.answer for job in Journal(room.state).unfinished()] == [before["ts"]]
        async with bot_process(room, hold, signal.SIGTERM):
            answer = await room.answered()
            assert answer["ts"] == before["ts"]
            await local.wait_for(lambda: room.posted("things checked and well", before["ts"]))
        assert len(local.messages(ROOM)) == 1
        assert Journal(room.state).unfinished() == []


@functools.cache
def _slow_bots() -> Programs:
    """One for all tests of a run: each bot would take a second of a processor to import the same."""
    return Programs("tests.slow_bot", ("tests.slow_bot",))


@contextlib.asynccontextmanager
async def bot_process(room: Room, hold: Path, end: signal.Signals) -> AsyncGenerator[asyncio.StreamReader]:
    """A bot in a process of its own, and what it prints; ended by the signal `end`."""
    environment = {
        **os.environ,
        "SLACK_API_URL": room.slack.base_url,
        "CALICO_WHY_DEVELOPMENT": "1",
        "SLACK_BOT_TOKEN": room.slack.bot_token,
        "SLACK_APP_TOKEN": room.slack.app_token,
        "SLACK_SIGNING_SECRET": room.slack.signing_secret,
        "CALICO_WHY_SLACK_MODE": room.mode,
        "CALICO_WHY_SLACK_LISTEN": "127.0.0.1:0",
        "CALICO_WHY_APPROVERS": "S0NETOPS",
    }
    arguments = (room.cluster.kubeconfig(BOT), str(room.state), str(hold))
    read, write = os.pipe()
    pid, report = await asyncio.to_thread(_slow_bots().begin, arguments, environment, write, 2)
    os.close(write)
    process, printed = Program(pid, report, Path(os.devnull)), asyncio.StreamReader()
    reading, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(printed), os.fdopen(read, "rb", buffering=0)
    )
    try:
        ready: list[str] = []
        while "ready" not in ready:  # what was accepted before is looked into even before that
            ready = (await asyncio.wait_for(printed.readline(), 20)).decode().split()
        if room.mode == "http":
            room.slack.request_url = f"http://127.0.0.1:{ready[1]}/slack/events"
        else:
            await room.slack.wait_for(lambda: room.slack.connections > 0)
        yield printed
    finally:
        process.signal(end)
        await process.ended()
        reading.close()
        if room.mode == "socket":
            await room.slack.wait_for(lambda: room.slack.connections == 0)
