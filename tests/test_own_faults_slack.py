"""A Slack that is gone, slow, limited, or says nothing: what somebody waits for comes once it is back, what was only on
the way is dropped, and what is delivered twice is done once."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bot import delivery
from bot.journal import Job, Journal
from fixes import claims as claiming
from fixes.claims import Claims
from fixes.store import connect
from lab.slack import LocalSlack
from tests.deployed import ADMINISTRATOR
from tests.fix_cluster import NAMESPACE, fix_cluster
from tests.own_faults import World, texts, until, world
from tests.programs import Programs
from tests.test_bot_slack import ROOM, Room, _all_text

WORDS = "why shop/cart shop/db 5432/tcp"
ANSWER = "I cannot say whether shop/cart reaches shop/db"
REPLIES = ("The path:", "Evidence:", "things checked and well")
NOBODY = "fx-7k2pabcd"  # a request that there is not
BOT = "calico-why-bot"  # its ServiceAccount
BACK_S = 40.0  # the longest pause between two tries is 30 s


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    started = Programs()
    yield started
    started.close()


async def answered(here: World, seconds: float = BACK_S, since: int = 0) -> str:
    """The message that holds the answer, once all replies to it are in its thread. since: of so many before."""

    def found() -> str:
        holds = [one["ts"] for one in here.slack.messages(ROOM)[since:] if ANSWER in _all_text(one)]
        return next((ts for ts in holds if all(any(r in t for t in texts(here.room, ts)) for r in REPLIES)), "")

    return await here.slack.wait_for(found, timeout=seconds)


def replies(here: World, ts: str) -> list[int]:
    """How often each part of the answer is in its thread."""
    return [sum(part in text for text in texts(here.room, ts)) for part in REPLIES]


async def test_slack_goes_while_it_is_asked_and_comes_back(tmp_path: Path, programs: Programs) -> None:
    async with world(tmp_path, programs) as here:
        await here.slack.go_away()
        bot = here.started()  # and waits for it
        await asyncio.sleep(3)
        await here.slack.come_back()
        await here.slack.wait_for(lambda: here.slack.connections, timeout=BACK_S)
        slow = here.cluster.slow()
        await here.slack.slash("ana", ROOM, f"/calico {WORDS}")
        await here.slack.slash("ana", ROOM, "/calico ipam show")
        await here.slack.slash("cleo", ROOM, "/calico fixes")
        await here.slack.wait_for(lambda: len(here.slack.messages(ROOM)) == 2)
        await here.slack.go_away()
        slow.go.set()
        await asyncio.sleep(2)  # in which all three are answered, and nobody takes it
        await here.slack.come_back()
        ts = await answered(here)
        await here.slack.wait_for(
            lambda: here.room.posted("addresses of default-ipv4-ippool are in use"), timeout=BACK_S
        )
        await here.room.whisper("cleo", "There are no fix requests")
        assert (replies(here, ts), len(here.slack.messages(ROOM))) == ([1, 1, 1], 2)
        await here.slack.wait_for(lambda: here.slack.connections, timeout=BACK_S)
        assert "Traceback" not in bot.text


async def asked(here: World, user: str = "ana", words: str = WORDS) -> None:
    assert (await here.slack.slash(user, ROOM, f"/calico {words}")).result == "ok"


async def test_whatever_a_call_meets_the_answer_comes(tmp_path: Path, programs: Programs) -> None:
    async with world(tmp_path, programs) as here, here.bot():
        calls = here.slack.calls
        # Each method, each failure. What is lost on its way back is there twice: nobody can know that it was taken.
        for failure, times in (("500", 3), ("reset", 3), ("lost", 1), ("429", 1)):
            here.slack.faults.clear()
            for method in ("chat.postMessage", "chat.update"):
                here.slack.faults.fail(method, failure, times)
            here.slack.faults.fail("files.getUploadURLExternal", failure)
            before = len(here.slack.messages(ROOM))
            await asked(here)
            ts = await answered(here, since=before)
            assert replies(here, ts) == [1, 1, 1], failure
            assert len(here.slack.messages(ROOM)) - before == (2 if failure == "lost" else 1)
        # A limit on progress holds nobody up: it is dropped, and none is tried before the answer.
        here.slack.faults.clear()
        here.slack.faults.fail("chat.update", "429", retry_after=30)
        since, before = len(calls), len(here.slack.messages(ROOM))
        slow = here.cluster.slow()
        await asked(here)
        await here.slack.wait_for(lambda: [one for one in calls[since:] if one.status == 429])
        await asyncio.sleep(1.5)  # longer than between two that are shown
        slow.go.set()
        limited = await answered(here, 20, since=before)
        assert [one.status for one in calls[since:] if one.method == "chat.update"] == [429, 200]
        assert replies(here, limited) == [1, 1, 1]
        # What is told to one person, whose response_url is used up besides.
        here.slack.faults.fail("chat.postEphemeral", "500", times=4)
        for hook in here.slack.workspace.response_urls.values():
            hook.uses = 5
        slow = here.cluster.slow()
        asking = asyncio.ensure_future(asked(here, "cleo", "fixes"))
        await here.slack.wait_for(lambda: here.slack.deliveries[-1].what.endswith("fixes"))
        for hook in here.slack.workspace.response_urls.values():
            hook.uses = 5
        slow.go.set()
        await asking
        await here.room.whisper("cleo", "There are no fix requests")


async def test_what_slack_refuses_is_said_another_way_or_where_it_can_be_heard(
    tmp_path: Path, programs: Programs
) -> None:
    async with world(tmp_path, programs) as here, here.bot():
        slow = here.cluster.slow()
        await asked(here)
        await here.slack.wait_for(lambda: here.room.posted("looking"))
        (line,) = here.slack.messages(ROOM)
        await here.slack.wait_for(lambda: here.room.posted("looking up"))
        here.slack.faults.refuse("chat.update", "msg_blocks_too_long")
        slow.go.set()
        ts = await answered(here)
        (shown,) = here.slack.messages(ROOM)
        assert (shown["ts"], shown.get("blocks")) == (line["ts"], None), "the same as text"
        assert replies(here, ts) == [1, 1, 1]
        # A file that Slack does not take is told, and all else is there.
        here.slack.faults.fail("files.completeUploadExternal", "500", times=9)
        await asked(here, words="get ippools -o json")
        await here.room.whisper("ana", "Slack did not take answer.json of this answer")
        assert here.room.posted("IPPool: 1")
        here.slack.faults.clear()
        # Somebody deletes the line that says that it is looked at.
        slow = here.cluster.slow()
        await asked(here)
        gone = await here.slack.wait_for(lambda: here.slack.messages(ROOM)[2:])
        here.slack.workspace.remove(here.slack.workspace.messages[(here.slack.channel_id(ROOM), gone[0]["ts"])])
        slow.go.set()
        await here.slack.wait_for(lambda: any(ANSWER in one for one in texts(here.room)[2:]), timeout=BACK_S)
        # The bot is thrown out, and the channel archived, between question and answer.
        for how, said in (("has_bot", "/invite @calico"), ("archived", "This channel is archived")):
            slow = here.cluster.slow()
            known = len(here.slack.messages(ROOM))
            await asked(here)
            await here.slack.wait_for(lambda known=known: len(here.slack.messages(ROOM)) > known)
            setattr(here.slack.workspace.channel(ROOM), how, how == "archived")
            slow.go.set()
            await here.room.whisper("ana", said)
            setattr(here.slack.workspace.channel(ROOM), how, how != "archived")
        await until(lambda: not Journal(here.directory / "bot").unfinished(), 10)


async def test_what_is_delivered_twice_is_done_once(tmp_path: Path, programs: Programs) -> None:
    async with world(tmp_path, programs) as here, here.bot():
        here.slack.faults.deliver_twice = 5
        await asked(here)
        await asked(here, "cleo", "fixes")
        await here.slack.mention("bo", ROOM, f"@calico {WORDS}")
        here.slack.faults.drop_acks = 1
        here.slack.clock.advance(0)
        lost = asyncio.ensure_future(here.slack.mention("bo", ROOM, "@calico ipam show"))
        await here.slack.wait_for(lambda: not here.slack.faults.drop_acks)
        here.slack.clock.advance(4)
        assert (await lost).result == "operation_timeout"
        await here.slack.wait_for(lambda: here.slack.deliveries[-1].retry == 1 and here.slack.deliveries[-1].result)
        await here.room.whisper("cleo", "There are no fix requests")
        await here.slack.wait_for(lambda: sum(ANSWER in one for one in texts(here.room)) == 1)
        await here.slack.wait_for(lambda: len(here.slack.messages(ROOM)) == 3)
        threads = [one["ts"] for one in here.slack.messages(ROOM)]
        assert len(here.room.told("cleo")) == 1
        assert threads


def events(here: World, what: str) -> list[dict[str, Any]]:
    """What replicas have told each other: "asked" is a claim, "told" says that it is answered."""
    found = here.cluster.objects.list("events", NAMESPACE)
    return [one for one in found if one["metadata"]["name"].startswith(f"calico-why-{what}-")]


def replica(here: World, pod: str) -> str:
    """The kubeconfig of a bot in this pod, which is there from now on."""
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": NAMESPACE}}
    uid = here.cluster.objects.create(made)["metadata"]["uid"]
    known = {f"authentication.kubernetes.io/pod-{key}": (value,) for key, value in (("name", pod), ("uid", uid))}
    return here.cluster.kubeconfig(BOT, token=pod, extra=known)


async def test_of_two_bots_to_which_a_mention_is_delivered_one_answers(tmp_path: Path, programs: Programs) -> None:
    async with world(tmp_path, programs) as here, here.bot("one") as one, here.bot("two") as two:
        quiet = "is answered by another replica"
        here.slack.faults.deliver_twice = 5
        for words in (WORDS, "ipam show", "fixes", f"approve {NOBODY}", "wyh"):
            await here.slack.mention("bo", ROOM, f"@calico {words}")
        assert [each.retry for each in here.slack.deliveries] == [0, 1] * 5
        await until(lambda: (one.text + two.text).count(quiet) == 5)
        for state in ("one", "two"):
            await until(
                lambda state=state: all(each.elsewhere for each in Journal(here.directory / state).unfinished())
            )
        threads = [each["ts"] for each in here.slack.messages(ROOM)]
        said = here.room.told("bo")
        for ts in threads:
            said += [*texts(here.room, ts), *here.room.told("bo", ts)]
        answers = (ANSWER, *REPLIES, "addresses of default-ipv4-ippool", "There are no fix requests", NOBODY, "'wyh'")
        assert [sum(part in text for text in said) for part in answers] == [1] * len(answers), said
        assert len(events(here, "asked")) == 5
        await until(lambda: len(events(here, "told")) == 5)
        assert not any(word in str(events(here, "")) for word in ("shop", "U0BO", NOBODY))


async def test_of_two_bots_without_an_api_server_at_least_one_answers(tmp_path: Path, programs: Programs) -> None:
    async with world(tmp_path, programs) as here, here.bot("one") as one, here.bot("two") as two:
        await here.wire.refuse()
        here.slack.faults.deliver_twice = 1
        await here.slack.mention("bo", ROOM, f"@calico {WORDS}")
        (asked,) = here.slack.messages(ROOM)
        await here.slack.wait_for(lambda: here.room.posted("API server", asked["ts"]), timeout=BACK_S)
        assert "cannot be seen, so it is answered here" in one.text + two.text
        await here.wire.mend()
        here.wire.hush()  # it takes what is asked, and answers nothing
        here.slack.faults.deliver_twice = 1
        await here.slack.mention("bo", ROOM, f"@calico {WORDS}")
        asked = here.slack.messages(ROOM)[-1]
        await here.slack.wait_for(lambda: here.room.posted("API server", asked["ts"]), timeout=BACK_S)
        assert "cannot be seen, so it is answered here: it takes too long" in one.text + two.text
        await here.wire.mend()


async def test_a_bot_that_was_killed_answers_what_it_had_claimed_and_no_other_does(
    tmp_path: Path, programs: Programs
) -> None:
    async with world(tmp_path, programs) as here:
        killed = here.started("one")
        await here.slack.wait_for(lambda: here.slack.connections, timeout=BACK_S)
        here.slack.faults.fail("chat.postMessage", "500", times=99)
        await here.slack.mention("bo", ROOM, f"@calico {WORDS}")
        await until(lambda: events(here, "asked"))
        killed.signal(signal.SIGKILL)
        await killed.ended()
        await here.slack.wait_for(lambda: not here.slack.connections)
        (job,) = Journal(here.directory / "one").unfinished()
        assert isinstance(job, Job)
        assert not job.answer
        here.slack.faults.clear()
        Journal(here.directory / "two").accept(job)  # as if it had been delivered there, too
        async with here.bot("two") as other:
            await until(lambda: f"{job.id} is answered by another replica" in other.text)
            await until(lambda: [one.elsewhere for one in Journal(here.directory / "two").unfinished()] == [True])
            assert texts(here.room, job.thread) == []
            async with here.bot("one"):
                await here.slack.wait_for(lambda: here.room.posted(ANSWER, job.thread), timeout=BACK_S)
                await until(lambda: not Journal(here.directory / "one").unfinished())
                await until(lambda: events(here, "told"))
        assert len(events(here, "asked")) == 1


@pytest.mark.parametrize("restarted", [False, True], ids=["at once", "after a restart"])
@pytest.mark.parametrize("words", ["why shop/cart shop/db 5432/tcp", "fixes", "capture shop/cart shop/db"])
async def test_what_a_replica_left_that_is_no_more_is_answered_by_another(
    tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch, words: str, restarted: bool
) -> None:
    monkeypatch.setattr(claiming, "LOOK_EVERY_S", 0.2)
    async with world(tmp_path, programs) as here, connect(replica(here, "bot-two"), NAMESPACE) as store:
        one = here.started("one", KUBECONFIG=replica(here, "bot-one"))
        await here.slack.wait_for(lambda: here.slack.connections, timeout=BACK_S)
        await until(lambda: ("selfsubjectreviews", "create") in asked_by(here))
        here.slack.faults.fail("*", "500", times=99)
        here.slack.faults.drop_acks = 1
        lost = asyncio.ensure_future(here.slack.mention("bo", ROOM, f"@calico {words}"))
        await until(lambda: events(here, "asked"))
        one.signal(signal.SIGKILL)
        await one.ended()
        await here.slack.wait_for(lambda: not here.slack.connections)
        here.slack.faults.clear()
        (asked,) = here.slack.messages(ROOM)
        here.room.store, here.room.state = store, tmp_path / "two"
        async with contextlib.AsyncExitStack() as running:
            await running.enter_async_context(here.room.bot())
            here.slack.clock.advance(4)  # and Slack brings it again
            assert (await lost).result == "operation_timeout"
            await looked(here)
            if restarted:
                await running.aclose()
                await running.enter_async_context(here.room.bot())
                await looked(here)
            assert not here.room.answers.asked and not texts(here.room, asked["ts"])
            here.cluster.objects.delete("pods", "bot-one", NAMESPACE)
            if words.startswith("why"):
                await here.slack.wait_for(lambda: here.room.posted("Wrong MAC", asked["ts"]))
            else:
                said = "There are no fix requests" if words == "fixes" else "I was stopped in the middle of it"
                thread = None if words == "fixes" else asked["ts"]
                await here.room.whisper("bo", said, thread)
            await until(lambda: events(here, "told"))
            assert Journal(tmp_path / "two").unfinished() == []
        assert [len(events(here, what)) for what in ("asked", "told")] == [2, 1]


async def looked(here: World) -> None:
    """Who claimed it is looked for, again and again."""
    since = len(here.cluster.server.calls)
    await until(lambda: asked_by(here, since).count(("pods", "get")) > 3)


def asked_by(here: World, since: int = 0) -> list[tuple[str, str]]:
    """resource and verb of each request of a bot in a pod"""
    return [(one.resource, one.verb) for one in list(here.cluster.server.calls)[since:] if BOT in one.user]


@pytest.mark.parametrize(
    ("how", "left"),
    [
        ("there", False),
        ("answered", False),
        ("no pod", False),
        ("forgotten", False),  # by the API server, within an hour: whether it is answered nobody knows then
        ("deleted", True),
        ("another of its name", True),
        ("evicted", True),
        ("on a node that is gone", True),
        ("going away", False),
    ],
)
async def test_a_claim_is_left_by_who_is_no_more_and_by_nobody_who_takes_long(
    tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch, how: str, left: bool
) -> None:
    monkeypatch.setattr(claiming, "LOOK_EVERY_S", 0.01)
    async with world(tmp_path, programs) as here, connect(replica(here, "bot-one"), NAMESPACE) as store:
        holder = Claims(store, "one")
        if how != "no pod":
            await holder.know_itself()
        assert await holder.take("Ev1")
        if how == "answered":
            await holder.answered("Ev1")
        objects = here.cluster.objects
        pod = objects.get("pods", "bot-one", NAMESPACE)
        if how in ("answered", "no pod", "forgotten", "deleted", "another of its name"):
            objects.delete("pods", "bot-one", NAMESPACE)
        if how == "forgotten":
            objects.delete("events", events(here, "asked")[0]["metadata"]["name"], NAMESPACE)
        if how == "another of its name":
            replica(here, "bot-one")
        elif how == "evicted":
            objects.update_status({**pod, "status": {"phase": "Failed", "reason": "Evicted"}})
        elif how in ("on a node that is gone", "going away"):  # a kubelet would take it away when its time is over
            objects.update({**pod, "metadata": {**pod["metadata"], "finalizers": ["test/no-kubelet"]}})
            objects.delete("pods", "bot-one", NAMESPACE)
            if how == "going away":
                here.room.store.now = lambda: datetime.now(UTC) - timedelta(minutes=1)
        others = [Claims(here.room.store, name) for name in ("two", "three")]
        found = await asyncio.gather(*(one.left("Ev1") for one in others))
        assert sorted(found) == [False, left], "one of them takes it over"


@pytest.mark.parametrize("how", ["silent", "used ticket", "warned", "link_disabled", "no tickets"])
async def test_a_socket_that_does_not_come_back_by_itself_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """All by a clock of a twentieth."""
    for name in ("PING_S", "CONNECTED_EVERY_S", "RECONNECT_AFTER_S", "CONNECT_S"):
        monkeypatch.setattr(delivery, name, getattr(delivery, name) / 20)
    async with LocalSlack() as slack, fix_cluster(tmp_path) as cluster, cluster.store(ADMINISTRATOR) as store:
        room = Room("socket", slack, cluster, store, tmp_path / "state")
        async with room.bot() as bot:
            if how == "silent":
                slack.faults.hush()
                await until(lambda: not bot.health.connected)
                slack.faults.clear()
            elif how == "used ticket":  # which Slack's own client tries for ever
                slack.faults.refuse_links = 1
                await slack.disconnect()
                await until(lambda: not slack.faults.refuse_links)
            elif how == "warned":
                await slack.warn()
            elif how == "no tickets":
                slack.faults.fail("apps.connections.open", "500", times=7)
                await slack.disconnect()
            else:
                await slack.disconnect(how)
            opened = [one.method for one in slack.calls].count("apps.connections.open")
            await slack.wait_for(lambda: slack.connections > 0, timeout=BACK_S)
            await until(lambda: bot.health.connected)
            await room.ask()
            await room.card()
            assert slack.connections == 1
            more = [one.method for one in slack.calls].count("apps.connections.open") - opened
            assert more <= (12 if how == "no tickets" else 4), more


def tickets(slack: LocalSlack) -> list[float]:
    """When each socket was asked for."""
    return [one.at for one in slack.calls if one.method == "apps.connections.open"]


@pytest.fixture
def soon_idle(monkeypatch: pytest.MonkeyPatch) -> float:
    """Seconds after which a socket that brings nothing is replaced, and tried again."""
    monkeypatch.setattr(delivery, "CONNECTED_EVERY_S", 0.1)
    monkeypatch.setattr(delivery, "CONNECT_S", 1.0)
    monkeypatch.setattr(delivery, "IDLE_AGAIN_S", 0.5)
    monkeypatch.setattr(delivery, "IDLE_S", 1.5)
    return delivery.IDLE_S


async def test_a_socket_that_answers_pings_and_brings_nothing_is_replaced(tmp_path: Path, soon_idle: float) -> None:
    async with LocalSlack() as slack, fix_cluster(tmp_path) as cluster, cluster.store(ADMINISTRATOR) as store:
        room = Room("socket", slack, cluster, store, tmp_path / "state")
        async with room.bot() as bot:
            room.answers.go.clear()
            await room.ask("/calico why shop/cart shop/db 5432/tcp")
            slack.deafen()
            slack.faults.refuse_links = 1  # nor does the first try to replace it succeed
            lost = asyncio.ensure_future(slack.mention("bo", ROOM, f"@calico {WORDS}"))
            await slack.wait_for(lambda: slack.connections == 2)  # the new one first
            assert bot.health.connected
            await slack.wait_for(lambda: slack.connections == 1)
            slack.clock.advance(4)
            assert (await lost).result == "operation_timeout"
            slack.clock.advance(400)  # in which Slack brings it again
            room.answers.go.set()
            await slack.wait_for(lambda: len(room.answers.asked) == 2)  # that of before, and what Slack brought again
            await room.card()
            assert bot.health.connected
        assert not slack.connections


async def test_a_busy_socket_is_not_replaced_and_an_idle_one_without_a_gap(tmp_path: Path, soon_idle: float) -> None:
    async with LocalSlack() as slack, fix_cluster(tmp_path) as cluster, cluster.store(ADMINISTRATOR) as store:
        room = Room("socket", slack, cluster, store, tmp_path / "state")
        async with room.bot():
            began = slack.clock.now()
            while slack.clock.now() < began + 3 * soon_idle:
                await room.ask("/calico wyh")
                await asyncio.sleep(0.1)
            slow = cluster.slow()  # so that what comes now is acknowledged when the socket is to be replaced already
            last = asyncio.ensure_future(room.ask("/calico fixes"))
            await slack.wait_for(lambda: slack.connections == 2)
            slow.go.set()
            assert (await last).result == "ok"
            for known in (2, 3):
                await slack.wait_for(lambda known=known: len(tickets(slack)) > known)
                await room.ask("/calico wyh")  # there is always one that brings it
        told = [one.at for one in slack.deliveries]
        pauses = [(a, b) for a, b in pairwise([*told, math.inf]) if b - a >= soon_idle - 0.1]
        assert all(any(a < at < b + 1 for a, b in pauses) for at in tickets(slack)[1:]), (told, tickets(slack))
        assert {one.result for one in slack.deliveries} == {"ok"}
