"""Where people of another workspace read along, a bot that is told to refuse says nothing of the cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from lab.slack import LocalSlack
from tests.deployed import ADMINISTRATOR
from tests.fix_cluster import fix_cluster
from tests.test_bot_slack import HEADLINE, QUESTION, ROOM, Room, _all_text

REFUSED = "shared with another workspace, so I answer nothing here"


@pytest.fixture(params=["socket", "http"])
async def room(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Room]:
    async with LocalSlack() as slack, fix_cluster(tmp_path) as cluster, cluster.store(ADMINISTRATOR) as store:
        yield Room(request.param, slack, cluster, store, tmp_path / "state", shared="refuse")


async def test_nothing_is_answered_where_another_workspace_reads(room: Room) -> None:
    async with room.bot():
        await room.ask()
        await room.whisper("ana", REFUSED)
        await room.slack.mention("cleo", ROOM, f"@calico {QUESTION.removeprefix('/calico ')}")
        await room.whisper("cleo", REFUSED)
        for words in ("/calico fixes", "/calico policy shop/cart shop/db"):
            await room.ask(words, "bo")
        await room.slack.wait_for(lambda: len(room.told("bo")) == 2)
        assert all(REFUSED in one for one in room.told("bo"))
    assert not room.answers.asked
    assert not any("shop/db" in _all_text(one) for one in room.slack.messages(ROOM) if one.get("bot_id"))


async def test_what_is_delivered_twice_is_refused_once(room: Room) -> None:
    async with room.bot():
        room.slack.faults.deliver_twice = 3
        await room.ask()
        await room.slack.mention("cleo", ROOM, "@calico fixes")
        await room.ask("/calico fixes", "bo")
        assert len(room.slack.deliveries) == 6
        for user in ("ana", "cleo", "bo"):
            await room.whisper(user, REFUSED)
    assert [len(room.told(user)) for user in ("ana", "cleo", "bo")] == [1, 1, 1]


async def test_in_a_channel_of_the_own_workspace_it_answers(room: Room) -> None:
    room.slack.workspace.channels[ROOM].members.remove("U0EVE")
    async with room.bot():
        for _ in range(2):
            await room.ask()
        await room.answered(HEADLINE)
    looks = [call for call in room.slack.calls if call.method == "conversations.info"]
    assert len(looks) == 1, "Slack is asked once a minute, not before each question"


async def test_what_slack_does_not_tell_counts_as_shared(room: Room) -> None:
    manifest = room.slack.workspace.manifest
    older = manifest.scopes - {"channels:read", "groups:read"}
    room.slack.workspace.manifest = msgspec.structs.replace(manifest, scopes=older)
    async with room.bot():
        await room.ask()
        await room.whisper("ana", "I cannot see whether this channel is shared")
    assert not room.answers.asked


async def test_a_conversation_with_one_person_is_shared_with_nobody(room: Room) -> None:
    async with room.bot() as app:
        assert await app._shared("D0ANA", known=False) == ""
