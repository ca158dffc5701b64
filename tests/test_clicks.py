"""A click is acknowledged at once and decided however long the cluster takes; nobody's click ends in silence."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from bot import cards
from bot.journal import Click, Journal
from fixes import store as stores
from fixes.audit import Audit
from fixes.request import Phase
from lab.slack import LocalSlack
from tests.deployed import ADMINISTRATOR
from tests.fix_cluster import fix_cluster
from tests.test_approvals_slack import until_in_trail
from tests.test_bot_slack import ROOM, Room, bot_process, room
from tests.test_capture_approval import card_of, until
from tests.test_capture_slack import ASKED, Takes

__all__ = ["room"]

BOTH = ["fix_approve", "fix_reject"]
AT_ONCE_MS = 1000  # of Slack's 3000, on a machine as busy as this one can be


def phase(room: Room, name: str) -> str:
    """As it is in the cluster, however slow that is to tell."""
    return str(room.cluster.objects.get("fixrequests", name, "calico-why")["status"]["phase"])


def history(room: Room, name: str) -> list[str]:
    events: list[dict[str, Any]] = room.cluster.objects.get("fixrequests", name, "calico-why")["status"]["history"]
    return [event["phase"] for event in events]


async def test_an_approval_is_taken_at_once_and_its_buttons_go_before_it_is_decided(room: Room) -> None:
    async with room.bot():
        await room.ask()
        request, thread, ts = await room.card()
        slow = room.cluster.slow()
        clicked = await room.slack.click("bo", ROOM, ts, "fix_approve")
        assert (clicked.result, clicked.ack_ms is not None and clicked.ack_ms < AT_ONCE_MS) == ("ok", True)
        await room.slack.wait_for(lambda: room.posted("approving: <@U0BO> clicked", thread))
        assert (room.buttons(thread, ts), phase(room, request.name)) == ([], "Pending")
        slow.go.set()
        await room.slack.wait_for(lambda: room.posted("approved, about to be done", thread))
        assert (room.buttons(thread, ts), phase(room, request.name)) == ([], "Approved")
        assert room.told("bo", thread) == []


async def test_so_is_the_reason_of_a_rejection(room: Room) -> None:
    async with room.bot():
        await room.ask()
        request, thread, ts = await room.card()
        await room.slack.click("bo", ROOM, ts, "fix_reject")
        form = await room.form("bo")
        assert room.buttons(thread, ts) == BOTH, "nothing is decided while somebody thinks about a reason"
        slow = room.cluster.slow()
        sent = await room.slack.submit_view("bo", form.id, {"fix_reason": "too risky"})
        assert (sent.result, sent.ack_ms is not None and sent.ack_ms < AT_ONCE_MS) == ("ok", True)
        await room.slack.wait_for(lambda: room.posted("rejecting: <@U0BO> gave a reason", thread))
        assert (room.buttons(thread, ts), phase(room, request.name)) == ([], "Pending")
        slow.go.set()
        await room.slack.wait_for(lambda: room.posted("rejected by <@U0BO>", thread))
        assert (room.buttons(thread, ts), phase(room, request.name)) == ([], "Rejected")


@pytest.mark.parametrize("mention", [False, True])
async def test_words_that_decide_are_taken_at_once_too(room: Room, mention: bool) -> None:
    async with room.bot():
        await room.ask()
        request, _, _ = await room.card()
        slow = room.cluster.slow()
        if mention:
            taken = await room.slack.mention("bo", ROOM, f"@calico approve {request.name}")
        else:
            taken = await room.slack.slash("bo", ROOM, f"/calico approve {request.name}")
        assert taken.result == "ok"
        slow.go.set()
        await room.whisper("bo", f"{request.name} is approved")
        assert phase(room, request.name) == "Approved"


async def test_where_the_cluster_cannot_be_asked_the_buttons_come_back_and_who_clicked_is_told(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with room.bot():
        await room.ask()
        request, thread, ts = await room.card()
        monkeypatch.setattr(stores, "CALL_TIMEOUT_S", 1.0)
        slow = room.cluster.slow()
        assert (await room.slack.click("bo", ROOM, ts, "fix_approve")).result == "ok"
        await room.slack.wait_for(lambda: room.buttons(thread, ts) == [])
        await room.whisper("bo", "cannot be reached", thread)
        assert "decided nothing that I know of" in room.told("bo", thread)[-1]
        assert (room.buttons(thread, ts), phase(room, request.name)) == (BOTH, "Pending")
        slow.go.set()
        monkeypatch.undo()
        await room.slack.click("bo", ROOM, ts, "fix_approve")
        await room.slack.wait_for(lambda: room.posted("approved, about to be done", thread))
        assert room.buttons(thread, ts) == []


async def test_who_may_not_takes_the_buttons_away_only_while_that_is_found_out(room: Room) -> None:
    async with room.bot():
        await room.ask()
        _, thread, ts = await room.card()
        slow = room.cluster.slow()
        await room.slack.click("cleo", ROOM, ts, "fix_approve")
        await room.slack.wait_for(lambda: room.buttons(thread, ts) == [])
        slow.go.set()
        await room.whisper("cleo", "You may not approve", thread)
        assert room.buttons(thread, ts) == BOTH


async def test_of_clicks_that_wait_for_the_cluster_one_decides_and_each_other_is_told(room: Room) -> None:
    async with room.bot(), room.bot():  # of two replicas either may get each
        await room.ask()
        request, thread, ts = await room.card()
        slow = room.cluster.slow()
        clicks = await asyncio.gather(
            *(room.slack.click(user, ROOM, ts, "fix_approve") for user in ("bo", "bo", "cleo", "bo"))
        )
        assert [one.result for one in clicks] == ["ok"] * 4
        await room.slack.wait_for(lambda: room.buttons(thread, ts) == [])
        slow.go.set()
        await room.whisper("cleo", "You may not approve", thread)
        already = lambda: [one for one in room.told("bo", thread) if "already approved" in one]  # noqa: E731
        await room.slack.wait_for(lambda: len(already()) == 2)
        await room.slack.wait_for(lambda: room.posted("approved, about to be done", thread))
        assert (room.buttons(thread, ts), history(room, request.name)) == ([], ["Approved"])


async def test_a_disk_that_keeps_nothing_takes_no_click_and_that_is_told(room: Room) -> None:
    async with room.bot():
        await room.ask()
        request, thread, ts = await room.card()
        clicks = room.state / "journal" / "clicks"
        clicks.rmdir()
        clicks.write_text("not a directory any more")
        await room.slack.click("bo", ROOM, ts, "fix_approve")
        await room.whisper("bo", "I cannot keep your decision safe", thread)
        await room.slack.slash("bo", ROOM, f"/calico approve {request.name}")
        await room.whisper("bo", "I cannot keep your decision safe")
        assert (room.buttons(thread, ts), phase(room, request.name)) == (BOTH, "Pending")
        assert (await room.store.get(request.name)).resource_version == request.resource_version


async def test_what_was_about_to_be_told_when_the_bot_died_is_told_and_decides_nothing(room: Room) -> None:
    async with room.bot():
        await room.ask()
        request, thread, ts = await room.card()
    click = Click(
        id="click-1",
        request=request.name,
        to=Phase.APPROVED,
        user="U0BO",
        team="T0LOCAL",
        channel=room.slack.channel_id(ROOM),
        thread=thread,
        card=ts,
        told="You may not, and it's late.",
        refused="You may not.",
    )
    assert Journal(room.state).accept(click)
    async with room.bot():
        await room.whisper("bo", "You may not, and it's late.", thread)
        assert await until_in_trail(room, request.name, "refused by U0BO", "approved: You may not.")
        assert phase(room, request.name) == "Pending"
    assert Journal(room.state).unfinished() == []


@contextlib.asynccontextmanager
async def killable(directory: Path, mode: str) -> AsyncGenerator[Room]:
    """A room whose bots are processes."""
    async with LocalSlack() as local, fix_cluster(directory) as cluster, cluster.store(ADMINISTRATOR) as store:
        yield Room(mode, local, cluster, store, directory / "state")


@pytest.mark.parametrize("mode", ["socket", "http"])
@pytest.mark.parametrize("written", [False, True])
async def test_a_click_whose_bot_is_killed_before_it_could_tell_is_decided_once_by_the_next_one(
    tmp_path: Path, mode: str, written: bool
) -> None:
    """written: the approval was made, and the bot killed before it heard so."""
    async with killable(tmp_path, mode) as room:
        async with bot_process(room, tmp_path / "hold", signal.SIGKILL):
            await room.ask()
            request, thread, ts = await room.card()
            slow = room.cluster.slow(done=written)
            assert (await room.slack.click("bo", ROOM, ts, "fix_approve")).result == "ok"
            await room.slack.wait_for(lambda: room.buttons(thread, ts) == [])
            if written:
                await until(room, request.name, Phase.APPROVED)
            assert phase(room, request.name) == ("Approved" if written else "Pending")
        slow.go.set()
        assert [job.request for job in Journal(room.state).unfinished() if isinstance(job, Click)] == [request.name]
        async with bot_process(room, tmp_path / "hold", signal.SIGTERM):
            await room.slack.wait_for(lambda: room.posted("approved, about to be done", thread))
            assert room.buttons(thread, ts) == []
        assert Journal(room.state).unfinished() == []
        assert history(room, request.name) == ["Approved"]
        assert room.told("bo", thread) == []
        events = [line.spec["event"] for line in await Audit(room.store, "reader").read()]
        assert events == ["Pending", "Approved"]


@pytest.mark.parametrize("mode", ["socket", "http"])
async def test_a_click_that_does_not_count_is_told_so_by_the_next_bot_and_the_buttons_are_back(
    tmp_path: Path, mode: str
) -> None:
    async with killable(tmp_path, mode) as room:
        async with bot_process(room, tmp_path / "hold", signal.SIGKILL):
            await room.ask()
            request, thread, ts = await room.card()
            slow = room.cluster.slow()
            assert (await room.slack.click("cleo", ROOM, ts, "fix_approve")).result == "ok"
            await room.slack.wait_for(lambda: room.buttons(thread, ts) == [])
        slow.go.set()
        async with bot_process(room, tmp_path / "hold", signal.SIGTERM):
            await room.whisper("cleo", "You may not approve", thread)
            await room.slack.wait_for(lambda: room.buttons(thread, ts) == BOTH)
        assert phase(room, request.name) == "Pending"


async def test_a_card_of_a_bot_that_never_comes_back_is_painted_anew_by_another_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "WATCH_S", 1)
    monkeypatch.setattr(cards, "REPAINT_S", 0.0)
    async with killable(tmp_path, "http") as room, room.bot():
        (tmp_path / "other").mkdir()
        other = Room("http", room.slack, room.cluster, room.store, tmp_path / "other")
        async with bot_process(other, tmp_path / "hold", signal.SIGKILL):  # what is delivered goes there
            await room.ask()
            _, thread, ts = await room.card()
            slow = room.cluster.slow()
            assert (await room.slack.click("bo", ROOM, ts, "fix_approve")).result == "ok"
            await room.slack.wait_for(lambda: room.posted("approving: <@U0BO> clicked", thread))
        slow.go.set()
        await room.slack.wait_for(lambda: room.buttons(thread, ts) == BOTH)


async def test_the_approval_of_a_capture_is_taken_at_once_too(room: Room) -> None:
    takes = Takes()
    room.capturing = takes.capturing("approval")
    async with room.bot():
        await room.ask(ASKED, user="cleo")
        request, thread, ts = await card_of(room)
        slow = room.cluster.slow()
        assert (await room.slack.click("bo", ROOM, ts, "fix_approve")).result == "ok"
        await room.slack.wait_for(lambda: room.posted("approving: <@U0BO> clicked", thread))
        assert (room.buttons(thread, ts), takes.asked) == ([], [])
        slow.go.set()
        await until(room, request.name, Phase.VERIFIED)
        await room.slack.wait_for(lambda: room.posted("captured", thread))
        assert (room.buttons(thread, ts), len(takes.asked)) == ([], 1)
