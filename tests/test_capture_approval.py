"""A capture that a second person approves, in a local Slack: nothing is looked at before, all of it once, and told."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from bot.captures import Capturing
from bot.errors import UserError
from bot.language import language
from fixes.audit import Audit, verify
from fixes.limits import Switch
from fixes.request import FixRequest, Person, Phase, Spec, digest, stamp
from lab.client import Lab
from lab.slack import LocalSlack
from tests import pcapng
from tests.deployed import ADMINISTRATOR
from tests.fix_cluster import fix_cluster
from tests.test_approvals_slack import until_in_trail
from tests.test_bot_slack import ROOM, Room, _all_text, bot_process, room
from tests.test_capture_slack import ASKED, PLACE, Takes, files, real

__all__ = ["room"]

WAITS = "A second person has to approve this"


async def card_of(room: Room) -> tuple[FixRequest, str, str]:
    """The request, with thread and ts of its card, once it is placed."""
    parent = await room.slack.wait_for(lambda: room.posted(WAITS))
    assert parent is not None
    card = await room.slack.wait_for(lambda: room.posted("May approve", parent["ts"]))
    assert card is not None
    async with asyncio.timeout(10):
        async for _, request in room.store.watch():
            if request.status.slack and request.status.slack.ts == card["ts"]:
                return request, parent["ts"], card["ts"]
    raise AssertionError


async def until(room: Room, name: str, *phases: Phase) -> FixRequest:
    async with asyncio.timeout(20):
        async for _, request in room.store.watch():
            if request.name == name and request.status.phase in phases:
                return request
    raise AssertionError


@pytest.mark.parametrize(("allowed", "words"), [("approval", "--seconds 3"), ("headers", "--seconds 3 --payload")])
async def test_what_a_second_person_approves_is_captured_and_told(room: Room, allowed: str, words: str) -> None:
    takes = Takes()
    room.capturing = takes.capturing(allowed)
    async with room.bot():
        await room.ask(f"{ASKED} {words}", user="cleo")
        request, thread, ts = await card_of(room)
        card = _all_text(next(one for one in room.slack.messages(ROOM, thread) if one["ts"] == ts))
        what = "whole packets" if "payload" in words else "packet headers"
        assert f"Capture {what} between shop/cart and shop/db, 5432/tcp for 3 s" in card
        assert "node-a: in shop/cart, the uplink\nnode-b: in shop/db, the uplink" in card
        assert "Changes nothing and sends nothing" in card and ("personal data" in card) == ("payload" in words)
        assert "asked by <@U0CLEO>" in card and "<!subteam^S0NETOPS> (not <@U0CLEO>)" in card and "Until" in card
        assert takes.asked == [], "nothing is looked at before"
        takes.go.clear()
        await room.slack.click("bo", ROOM, ts, "fix_approve")
        await room.slack.wait_for(lambda: room.buttons(thread, ts) == [])
        await room.slack.wait_for(lambda: room.posted("being captured", thread))
        assert await room.slack.wait_for(lambda: room.posted("3 of 10 s, 120 packets")), "its message says how it goes"
        takes.go.set()
        done = await until(room, request.name, Phase.VERIFIED)
        assert (
            "1 packets between shop/cart and shop/db in 10.0 s, capture-shop-cart-shop-db.pcapng is in the thread."
            in (done.status.message)
        )
        parent = await room.slack.wait_for(lambda: room.posted(f"{PLACE}       1       0"))
        assert parent is not None and parent["ts"] == thread, "and becomes the summary"
        [(name, content)] = files(room.slack, thread)
        assert name == "capture-shop-cart-shop-db.pcapng" and len(pcapng.read(content).packets) == 1
        await room.slack.wait_for(lambda: room.posted("captured by", thread) or room.posted("• captured", thread))
        await until_in_trail(room, request.name, "Running", "by the bot")
        await until_in_trail(room, request.name, "published")
        assert room.answers.asked == [], "no question is asked again: nothing was changed"
    assert [(one.seconds, one.payload) for one in takes.asked] == [(3.0, "payload" in words)]
    assert verify(await Audit(room.store, "reader").read(), await room.store.all()) == []


async def test_in_a_thread_card_and_file_are_in_that_thread(room: Room) -> None:
    takes = Takes()
    room.capturing = takes.capturing("approval")
    async with room.bot():
        await room.slack.say("ana", ROOM, "shop is broken")
        (parent,) = room.slack.messages(ROOM)
        await room.slack.mention("ana", ROOM, "@calico capture shop/cart shop/db", parent["ts"])
        await room.slack.wait_for(lambda: room.posted(WAITS, parent["ts"]))
        card = await room.slack.wait_for(lambda: room.posted("May approve", parent["ts"]))
        assert card is not None
        await room.slack.click("bo", ROOM, card["ts"], "fix_approve")
        await room.slack.wait_for(lambda: files(room.slack, parent["ts"]))
        assert [one["ts"] for one in room.slack.messages(ROOM)] == [parent["ts"]]


async def test_who_may_not_approves_nothing_and_is_told(room: Room) -> None:
    takes = Takes()
    room.capturing = takes.capturing("approval")
    async with room.bot():
        await room.ask(ASKED)  # ana is an approver herself
        request, thread, ts = await card_of(room)
        for user, sentence in (
            ("ana", "somebody else has to approve"),
            ("cleo", "You may not approve"),
            ("eve", "another workspace"),
        ):
            await room.slack.click(user, ROOM, ts, "fix_approve")
            await room.whisper(user, sentence, thread)
        assert room.buttons(thread, ts) == ["fix_approve", "fix_reject"], "who may decide still can"
        assert (await room.store.get(request.name)).resource_version == request.resource_version
    async with room.bot():  # which has not asked yet who is in the group
        room.slack.faults.fail("usergroups.users.list", "500", times=9)
        await room.slack.click("bo", ROOM, ts, "fix_approve")
        await room.whisper("bo", "so nobody may for now", thread)
        await until_in_trail(room, "refused by U0BO")
    assert takes.asked == []


async def test_a_rejection_a_cancellation_and_the_end_of_time_are_no_capture(room: Room) -> None:
    takes = Takes()
    room.capturing = takes.capturing("approval")
    async with room.bot():
        await room.ask(ASKED)
        request, thread, ts = await card_of(room)
        await room.slack.click("bo", ROOM, ts, "fix_reject")
        form = await room.form("bo")
        await room.slack.submit_view("bo", form.id, {"fix_reason": "customer data"})
        card = await room.slack.wait_for(lambda: room.posted("rejected, nothing was captured", thread))
        assert card is not None and "customer data" in _all_text(card) and room.buttons(thread, ts) == []
        await room.ask(f"/calico approve {request.name}", "bo")
        await room.whisper("bo", "already rejected")
        await room.ask("/calico fixes", "cleo")
        await room.whisper("cleo", f"{request.name}  Capture packet headers between shop/cart and shop/db")
    async with room.bot():
        spec = msgspec.structs.replace(request.spec, requested_at=stamp(datetime.now(UTC)))
        taken_back = await room.store.create(spec)
        await room.ask(f"/calico cancel {taken_back.name}")
        await room.whisper("ana", f"{taken_back.name} is cancelled")
        late = await room.store.create(spec)
        room.store.now = lambda: datetime.now(UTC) + timedelta(minutes=16)
        await room.ask(f"/calico approve {late.name}", "bo")
        await room.whisper("bo", "expired")
    assert takes.asked == []


async def test_two_bots_and_six_clicks_make_one_capture(tmp_path: Path) -> None:
    async with LocalSlack() as slack, fix_cluster(tmp_path) as cluster, cluster.store(ADMINISTRATOR) as store:
        room, takes = Room("socket", slack, cluster, store, tmp_path / "state"), Takes()
        room.capturing = takes.capturing("approval")
        async with room.bot(), room.bot():
            await slack.wait_for(lambda: slack.connections == 2)
            await room.ask(ASKED)
            request, thread, ts = await card_of(room)
            clicks = (slack.click(user, ROOM, ts, "fix_approve") for user in ["bo"] * 6)
            assert all(one.result == "ok" for one in await asyncio.gather(*clicks))
            await slack.wait_for(lambda: len([one for one in room.told("bo", thread) if "already" in one]) == 5)
            done = await until(room, request.name, Phase.VERIFIED)
            await slack.wait_for(lambda: room.posted(":white_check_mark: captured", thread))
            assert [event.phase for event in done.status.history] == [Phase.APPROVED, Phase.RUNNING, Phase.VERIFIED]
            assert len(takes.asked) == 1 and len(files(slack, thread)) == 1
        assert [one.phase for one in (await store.get(request.name)).status.history].count(Phase.RUNNING) == 1


async def test_a_bot_needs_no_more_than_the_right_to_relay(tmp_path: Path) -> None:
    """In a cluster that holds writes to the admission policies, and with a Chinese card."""
    async with (
        LocalSlack() as slack,
        fix_cluster(tmp_path, with_policies=True) as cluster,
        cluster.store(ADMINISTRATOR) as store,
    ):
        room = Room("socket", slack, cluster, store, tmp_path / "state")
        room.capturing = Takes().capturing("approval")
        async with room.bot(language("zh")):
            await room.ask(ASKED, user="cleo")
            parent = await slack.wait_for(lambda: room.posted("需要另一个人批准"))
            assert parent is not None
            card = await slack.wait_for(lambda: room.posted("将抓取", parent["ts"]))
            assert card is not None
            await slack.click("bo", ROOM, card["ts"], "fix_approve")
            await slack.wait_for(lambda: files(slack, parent["ts"]))
            await slack.wait_for(lambda: room.posted("已抓包", parent["ts"]))
        (request,) = await store.all()
        assert request.status.phase is Phase.VERIFIED


async def test_another_pod_of_that_name_was_not_approved(room: Room) -> None:
    takes = Takes()
    room.capturing = takes.capturing("approval")
    async with room.bot():
        await room.ask(ASKED)
        request, thread, ts = await card_of(room)
        takes.ends = (takes.ends[0], msgspec.structs.replace(takes.ends[1], node="node-c", address="10.244.3.9"))
        await room.slack.click("bo", ROOM, ts, "fix_approve")
        stale = await until(room, request.name, Phase.STALE)
        assert "shop/db is another pod now, 10.244.3.9 on node-c; it was 10.244.2.7 on node-b" in stale.status.message
        await room.slack.wait_for(lambda: room.posted("stale, nothing was captured", thread))
    assert takes.asked == []


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (UserError("No probe captures there."), "No probe captures"),
        (RuntimeError("boom"), "Something in me"),
    ],
)
async def test_a_capture_that_fails_is_told_on_its_card(room: Room, trouble: Exception, told: str) -> None:
    takes = Takes()
    room.capturing = Capturing(takes, Takes().plan, "approval")
    async with room.bot():
        await room.ask(ASKED)
        request, thread, ts = await card_of(room)
        takes.trouble = trouble
        await room.slack.click("bo", ROOM, ts, "fix_approve")
        failed = await until(room, request.name, Phase.FAILED)
        assert told in failed.status.message and "There is no file." in failed.status.message
        await room.slack.wait_for(lambda: room.posted(told, thread))
        assert room.posted(told), "its own message says so, too"
        assert files(room.slack, thread) == []


async def test_a_file_slack_does_not_take_is_no_success(tmp_path: Path) -> None:
    async with LocalSlack() as slack, fix_cluster(tmp_path) as cluster, cluster.store(ADMINISTRATOR) as store:
        room = Room("socket", slack, cluster, store, tmp_path / "state")
        room.capturing = Takes().capturing("approval")
        slack.faults.fail("files.completeUploadExternal", "500", times=5)
        async with room.bot():
            await room.ask(ASKED)
            request, _, ts = await card_of(room)
            await slack.click("bo", ROOM, ts, "fix_approve")
            failed = await until(room, request.name, Phase.FAILED)
            assert "The file could not be uploaded" in failed.status.message


async def test_what_cannot_be_captured_is_told_and_nobody_is_asked_to_approve_it(room: Room) -> None:
    takes = Takes()
    takes.trouble = UserError("shop/db is a Service; name one of the pods behind it.")
    room.capturing = takes.capturing("approval")
    async with room.bot():
        await room.ask(ASKED)
        await room.slack.wait_for(lambda: room.posted("shop/db is a Service"))
        assert await room.store.all() == []


async def test_switched_off_between_click_and_capture_nothing_is_captured(room: Room) -> None:
    takes = Takes()
    room.capturing = takes.capturing("approval")
    async with room.bot():
        await room.ask(ASKED)
        request, _, ts = await card_of(room)
        await Switch(room.store).turn(False, Person(id="U0ANA", via="slack"), "an audit")
        await room.slack.click("bo", ROOM, ts, "fix_approve")
        async with asyncio.timeout(20):
            async for _, one in room.store.watch():
                if one.name == request.name and one.status.waits:
                    break
        assert one.status.phase is Phase.APPROVED and "switched off by U0ANA" in one.status.waits.text
    assert takes.asked == []


async def test_a_request_made_past_the_bot_needs_the_same_approval_and_can_ask_for_nothing_else(room: Room) -> None:
    """With kubectl: what it says is read as if somebody had typed it, and only what it says is approved."""
    takes = Takes()
    room.capturing = takes.capturing("approval")
    async with room.bot():
        await room.ask(ASKED)
        asked = (await card_of(room))[0].spec
        for changes in ({"seconds": "3600"}, {"content": "everything"}, {"port": "99999/tcp"}, {"source": "$(reboot)"}):
            request = await room.store.create(altered(asked, **changes))
            await room.ask(f"/calico approve {request.name}", "bo")
            assert (await until(room, request.name, Phase.FAILED)).status.message.startswith("Nothing was done: ")
        unseen = await room.store.create(msgspec.structs.replace(altered(asked), evidence=()))
        await room.ask(f"/calico approve {unseen.name}", "bo")
        await until(room, unseen.name, Phase.STALE)
        assert takes.asked == []
        made = await room.store.create(altered(asked, thread="", message=""))
        async with asyncio.timeout(10):
            async for _, one in room.store.watch():
                if one.name == made.name and one.status.preview:
                    break
        assert f"channel {room.slack.channel_id(ROOM)}, thread (a new one)" in one.status.preview[-1]
        await room.ask(f"/calico approve {made.name}", "bo")
        await until(room, made.name, Phase.VERIFIED)
        assert len(takes.asked) == 1
        new = room.posted("1 packets between")
        assert new is not None and len(files(room.slack, new["ts"])) == 1


def altered(spec: Spec, **arguments: str) -> Spec:
    changed = {**spec.arguments, **arguments}
    made = digest(spec.kind, spec.node, changed, spec.evidence)
    return msgspec.structs.replace(spec, arguments=changed, digest=made)


async def test_a_bot_that_is_stopped_in_the_middle_says_so(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixes.executor.STOP_S", 0.2)
    takes = Takes()
    room.capturing = takes.capturing("approval")
    takes.go.clear()
    async with room.bot():
        await room.ask(ASKED)
        request, thread, ts = await card_of(room)
        await room.slack.click("bo", ROOM, ts, "fix_approve")
        await room.slack.wait_for(lambda: room.posted("3 of 10 s"))
    ended = await room.store.get(request.name)
    assert (ended.status.phase, len(takes.asked)) == (Phase.FAILED, 1)
    assert "the bot was stopped in the middle of it" in ended.status.message
    assert room.posted("I was stopped in the middle of it")
    async with room.bot():
        await room.slack.wait_for(lambda: room.posted("the bot was stopped in the middle of it", thread))
    assert len(takes.asked) == 1, "and it is not made again"


@pytest.mark.parametrize("mode", ["socket", "http"])
async def test_after_a_kill_nobody_captures_again_and_the_card_says_that_nobody_knows(
    tmp_path: Path, mode: str
) -> None:
    async with LocalSlack() as slack, fix_cluster(tmp_path) as cluster, cluster.store(ADMINISTRATOR) as store:
        hold = tmp_path / "hold"
        hold.touch()
        room, takes = Room(mode, slack, cluster, store, tmp_path / "state"), Takes()
        async with bot_process(room, hold, signal.SIGKILL) as bot:
            await room.ask(ASKED)
            request, thread, ts = await card_of(room)
            await slack.click("bo", ROOM, ts, "fix_approve")
            assert await asyncio.wait_for(bot.readline(), 10) == b"capturing\n"
            await until(room, request.name, Phase.RUNNING)
        room.capturing = takes.capturing("approval")
        async with room.bot():  # so soon another bot may be at it
            await slack.wait_for(lambda: room.posted("being captured", thread))
            assert (await store.get(request.name)).status.phase is Phase.RUNNING
        store.now = lambda: datetime.now(UTC) + timedelta(minutes=3)
        async with room.bot():
            await slack.wait_for(lambda: room.posted("whether there is a file is not known", thread))
            await slack.wait_for(lambda: room.posted("I was stopped in the middle of it"))
        assert (await store.get(request.name)).status.phase is Phase.UNKNOWN
        assert takes.asked == [] and room.buttons(thread, ts) == []


async def test_while_the_cluster_takes_no_requests_nothing_is_captured(tmp_path: Path) -> None:
    async with (
        LocalSlack() as slack,
        fix_cluster(tmp_path, with_crd=False) as cluster,
        cluster.store(ADMINISTRATOR) as store,
    ):
        room, takes = Room("socket", slack, cluster, store, tmp_path / "state"), Takes()
        room.capturing = takes.capturing("approval")
        async with room.bot():
            await room.ask(ASKED)
            await slack.wait_for(lambda: room.posted("This cluster does not know fix requests"))
        assert takes.asked == []


async def test_approved_whole_packets_of_a_real_network(lab: Lab, tmp_path: Path) -> None:
    """All of it: the card names the places, a second person clicks, and the file holds what the pods said."""
    async with real(lab, tmp_path) as room, room.bot():
        await room.ask(f"{ASKED} --payload --seconds 20 --packets 16", user="cleo")
        request, thread, ts = await card_of(room)
        lines = request.status.preview
        assert lines[0].startswith("node-a: in shop/cart, at cali") and "vxlan.calico, the uplink (" in lines[0]
        assert lines[1].startswith("node-b: in shop/db, at cali")
        assert "tcp port 5432, both ways" in lines[2] and "whole packets" in lines[3] and "16 packets" in lines[4]
        await room.slack.click("bo", ROOM, ts, "fix_approve")
        done = await until(room, request.name, Phase.VERIFIED, Phase.FAILED, Phase.UNKNOWN)
        assert done.status.phase is Phase.VERIFIED, done.status.message
        [(_, content)] = files(room.slack, thread)
        assert 8 <= len(pcapng.read(content).packets) <= 16
