"""`capture` in a local Slack: the file is in the thread, and who may not have it gets a sentence instead."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bot.capture import Captured, Planned, Progress, Row, Wanted, capture, plan
from bot.captures import Capturing
from bot.errors import UserError
from bot.language import language
from bot.pcapng import Interface, Packet, write
from bot.settings import from_environment
from bot.slack import Slack, SlackFailed, web_client
from bot.sources.kubernetes import Cluster
from bot.sources.probes import Probes
from facts import Endpoint
from fixes import configuration
from fixes.approvers import Approvers
from lab.client import Lab
from lab.slack import LocalSlack
from tests import pcapng
from tests.browser import chromium
from tests.deployed import ADMINISTRATOR
from tests.fix_cluster import fix_cluster
from tests.test_bot_slack import ROOM, Room, _all_text
from tests.test_capture import speak
from tests.test_slack_page import sitting

ASKED = "/calico capture shop/cart shop/db 5432/tcp"
PLACE = "node-a shop/cart eth0"


class Takes:
    """Stands in for the probes: what was asked for, and a gate to hold the end back."""

    def __init__(self) -> None:
        self.asked: list[Wanted] = []
        self.go = asyncio.Event()
        self.go.set()
        self.trouble: Exception | None = None
        self.packets = 1
        self.ends = (
            Endpoint(name="shop/cart", kind="pod", node="node-a", address="10.244.1.5"),
            Endpoint(name="shop/db", kind="pod", node="node-b", address="10.244.2.7"),
        )

    def capturing(self, allowed: str) -> Capturing:
        return Capturing(self, self.plan, allowed)

    async def plan(self, wanted: Wanted) -> Planned:
        if self.trouble:
            raise self.trouble
        return Planned(ends=self.ends, lines=("node-a: in shop/cart, the uplink", "node-b: in shop/db, the uplink"))

    async def __call__(self, wanted: Wanted, *, progress: Progress | None = None) -> Captured:
        self.asked.append(wanted)
        if progress:
            await progress("3 of 10 s, 120 packets")
        await self.go.wait()
        if self.trouble:
            raise self.trouble
        packets = [Packet(interface=0, at_ns=1, length=20, out=True, data=bytes(20))] * self.packets
        return Captured(
            name="capture-shop-cart-shop-db.pcapng",
            file=write([Interface(name=PLACE, link=1)], packets, comments=[], application="test", snap=256),
            wanted=wanted,
            seconds=10.0,
            packets=self.packets,
            rows=(Row(place=PLACE, there=self.packets, back=0),),
            notes=("Headers only: payloads were cut off on the nodes.",),
            complete=True,
        )


def files(slack: LocalSlack, thread: str) -> list[tuple[str, bytes]]:
    """(name, content) of each file in a thread."""
    shared = [file for one in slack.messages(ROOM, thread) for file in one.get("files", ())]
    return [(file["name"], slack.workspace.uploads[file["id"]].data or b"") for file in shared]


@pytest.fixture(params=["socket", "http"])
async def room(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Room]:
    async with LocalSlack() as slack, fix_cluster(tmp_path) as cluster, cluster.store(ADMINISTRATOR) as store:
        room = Room(request.param, slack, cluster, store, tmp_path / "state")
        yield room
        refused = [(call.method, call.error) for call in slack.calls if call.error]
        assert not refused, "the bot sent what Slack does not take"


async def finished(room: Room, text: str) -> dict[str, Any]:
    found = await room.slack.wait_for(lambda: room.posted(text))
    assert found is not None
    return found


async def test_the_message_becomes_the_summary_and_the_file_is_in_its_thread(room: Room) -> None:
    takes = Takes()
    room.capturing = takes.capturing("headers")
    takes.go.clear()
    async with room.bot():
        await room.ask(f"{ASKED} --seconds 3", user="cleo")
        line = await finished(room, "3 of 10 s, 120 packets")
        assert "<@U0CLEO> asked: capture `shop/cart shop/db 5432/tcp --seconds 3`" in _all_text(line)
        takes.go.set()
        done = await finished(room, "1 packets between shop/cart and shop/db in 10.0 s")
        assert done["ts"] == line["ts"] and f"{PLACE}       1       0" in _all_text(done)
        assert "payloads were cut off" in _all_text(done)
        head = " " * len(PLACE) + "   there    back"
        assert f"{head}\n{PLACE}       1       0" in _all_text(done), "each number stands below its head"
        await room.slack.wait_for(lambda: files(room.slack, line["ts"]))
        [(name, content)] = files(room.slack, line["ts"])
        assert name == "capture-shop-cart-shop-db.pcapng" and len(pcapng.read(content).packets) == 1
    assert [(one.seconds, one.payload) for one in takes.asked] == [(3.0, False)]


async def test_a_mention_is_answered_in_its_thread(room: Room) -> None:
    room.capturing = Takes().capturing("headers")
    async with room.bot(language("zh")):
        await room.slack.mention("ana", ROOM, "capture shop/cart shop/db —seconds 2")
        ts = room.slack.messages(ROOM)[-1]["ts"]
        await room.slack.wait_for(lambda: files(room.slack, ts))
        await room.slack.wait_for(lambda: room.posted("10.0 秒内 shop/cart 与 shop/db 之间有 1 个报文", ts))


@pytest.mark.parametrize(
    ("allowed", "words", "user", "told"),
    [
        ("headers", "", "cleo", ""),
        ("headers", "--payload", "ana", ""),
        ("approvers", "", "cleo", "You may not capture: <!subteam^S0NETOPS> may."),
        ("approvers", "", "bo", ""),
        ("off", "", "ana", "Nothing is captured from Slack here"),
        ("headers", "--payload --seconds 90", "ana", "from 0.1 to 60 s"),
    ],
)
async def test_who_may_capture_what(
    room: Room, allowed: str, words: str, user: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    takes = Takes()
    room.capturing = takes.capturing(allowed)
    async with room.bot():  # "payload" is a word Bolt's HTTP mode trips over
        await room.ask(f"{ASKED} {words}", user=user)
        if told:
            await room.whisper(user, told)
            assert takes.asked == [] and room.slack.messages(ROOM) == [], "nobody else hears of it"
        else:
            await finished(room, "1 packets between")
    audit = [record.getMessage() for record in caplog.records if record.getMessage().startswith("audit: capture")]
    if "90" in words:
        assert audit == [], "it was no capture at all"
    else:
        (line,) = audit
        assert f"by {room.slack.user_id(user)} in" in line and ("refused" in line) == bool(told)


@pytest.mark.parametrize("approvers", [Approvers(), Approvers(frozenset({"S0GONE"}))])
async def test_where_nobody_is_known_to_be_an_approver_nobody_gets_whole_packets(
    tmp_path: Path, approvers: Approvers
) -> None:
    """An empty list, and a group that Slack does not tell: both are a no."""
    async with LocalSlack() as slack, fix_cluster(tmp_path) as cluster, cluster.store(ADMINISTRATOR) as store:
        room, takes = Room("socket", slack, cluster, store, tmp_path / "state"), Takes()
        room.capturing, room.approvers = takes.capturing("headers"), approvers
        async with room.bot():
            await room.ask(f"{ASKED} --payload")
            words = "did not say who may capture" if approvers.entries else "nobody may, because the list of approvers"
            await room.whisper("ana", words)
        assert takes.asked == []


async def test_a_bot_told_nothing_about_captures_makes_none(room: Room) -> None:
    async with room.bot():
        await room.ask(ASKED)
        await room.whisper("ana", "Nothing is captured from Slack here")


async def test_trouble_is_told_where_the_question_was(room: Room) -> None:
    takes = Takes()
    room.capturing = takes.capturing("headers")
    async with room.bot():
        takes.trouble = UserError("shop/db is a Service; name one of the pods behind it.")
        await room.ask(ASKED)
        await finished(room, "shop/db is a Service")
        takes.trouble = RuntimeError("a mistake")
        await room.ask(ASKED)
        await finished(room, "Something in me broke")
        takes.trouble, takes.packets = None, 0
        await room.ask(ASKED)
        empty = await finished(room, "0 packets between")
        assert files(room.slack, empty["ts"]) == [], "an empty file tells nobody anything"


async def test_a_bot_that_stops_in_the_middle_says_so(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.work.DRAIN_S", 0.1)
    takes = Takes()
    room.capturing = takes.capturing("headers")
    takes.go.clear()
    async with room.bot():
        await room.ask(ASKED)
        await finished(room, "3 of 10 s")
    assert room.posted("I was stopped in the middle of it")


async def test_a_file_slack_does_not_take_is_told_with_another_way(tmp_path: Path) -> None:
    async with LocalSlack() as slack, fix_cluster(tmp_path) as cluster, cluster.store(ADMINISTRATOR) as store:
        room = Room("socket", slack, cluster, store, tmp_path / "state")
        room.capturing = Takes().capturing("headers")
        slack.faults.fail("files.completeUploadExternal", "500", times=5)
        async with room.bot():
            await room.ask(ASKED)
            done = await finished(room, "The file could not be uploaded")
            assert "calico-why capture shop/cart shop/db 5432/tcp" in _all_text(done)


async def test_a_file_goes_nowhere_but_to_slack() -> None:
    slack = Slack(web_client("xoxb-1", "https://slack.com/api/"))
    for url in ("https://files.slack.com.example/x", "http://files.slack.com/x", "http://127.0.0.1:1/x"):
        with pytest.raises(SlackFailed, match="not sent there"):
            await slack._send(url, b"secret")


def test_a_setting_nobody_can_mean_keeps_the_bot_from_starting() -> None:
    assert configuration.read({}).slack_capture == "headers"
    with pytest.raises(configuration.Misconfigured, match=r"headers .* approval .* approvers .* off"):
        configuration.read({"CALICO_WHY_SLACK_CAPTURE": "yes"})


@pytest.fixture(scope="module")
def browser() -> Iterator[str]:
    with chromium() as address:
        yield address


@contextlib.asynccontextmanager
async def real(lab: Lab, directory: Path) -> AsyncIterator[Room]:
    """A room whose captures are of this lab, where pods talk as soon as the first one has begun."""
    settings = from_environment(lab.environment())
    talked = asyncio.Event()
    async with (
        LocalSlack() as slack,
        fix_cluster(directory) as fixes,
        fixes.store(ADMINISTRATOR) as store,
        Cluster(settings) as cluster,
        Probes(settings) as probes,
    ):

        async def take(wanted: Wanted, *, progress: Progress | None = None) -> Captured:
            async def told(text: str) -> None:
                if progress:
                    await progress(text)
                if text.startswith("0 of 20 s") and not talked.is_set():
                    talked.set()
                    await asyncio.to_thread(speak, lab, "shop/cart", "shop/db", 5432)

            return await capture(wanted, cluster=cluster, probes=probes, progress=told)

        room = Room("socket", slack, fixes, store, directory / "state")
        room.capturing = Capturing(take, partial(plan, cluster=cluster), "headers")
        yield room


async def test_from_the_channel_to_a_file_of_real_packets(lab: Lab, browser: str, tmp_path: Path) -> None:
    """All of it: somebody types in the page, probes look on, pods talk, and the page offers the file."""
    async with real(lab, tmp_path) as room, room.bot(), sitting(browser, room.slack) as page:
        await page.type("#composer-text", f"{ASKED} --seconds 20 --packets 16")
        await page.press("Enter")
        done = await room.slack.wait_for(lambda: room.posted(" packets between shop/cart and shop/db"), 60)
        assert done is not None and "node-b shop/db eth0" in _all_text(done)
        await room.slack.wait_for(lambda: files(room.slack, done["ts"]))
        [(name, content)] = files(room.slack, done["ts"])
        assert 8 <= len(pcapng.read(content).packets) <= 16
        await page.click("#messages .replies")
        await page.wait_for(f"document.querySelector('.file a')?.download === {name!r}")
