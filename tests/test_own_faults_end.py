"""A bot that is told to stop ends in time with status 0: what is under way is answered, or told and answered by the
next one, once; another replica goes on."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from bot.journal import Journal
from fixes.limits import Switch
from lab.apiserver import User
from lab.apiserver.requests import Target
from tests.deployed import BOT, named
from tests.own_faults import World, texts, until, world
from tests.programs import Program, Programs
from tests.test_bot_slack import ROOM, _all_text
from tests.test_own_faults_cluster import BOTH, a_card
from tests.test_own_faults_slack import ANSWER, WORDS, answered, replies

GRACE_S = 30.0  # deploy/base/bot.yaml gives 60
KEPT = "The answer comes here once I am back"
STOPPED = "I was stopped in the middle of it. Please ask again."
IN_USE = "addresses of default-ipv4-ippool are in use"
POLICY = " passes from shop/cart to shop/db"
KEEP = " files of "
ANSWERED = "answered"


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    started = Programs()
    yield started
    started.close()


async def ends_well(bot: Program) -> None:
    began = time.monotonic()
    assert await asyncio.wait_for(bot.ended(), 2 * GRACE_S) == 0, bot.text
    assert time.monotonic() - began < GRACE_S
    assert "Traceback" not in bot.text


def how_it_ended(here: World, thread: str | None) -> str:
    """Whether there is an answer, or the word of a stop; "" where neither is."""
    said = [*texts(here.room, thread), *here.room.told("cleo", thread)]
    if word := next((one for one in (KEPT, STOPPED) if any(one in text for text in said)), ""):
        return word
    return ANSWERED if said and not any(":mag:" in one for one in said) else ""


async def connected(here: World, bots: int = 1) -> None:
    await here.slack.wait_for(lambda: here.slack.connections == bots, timeout=30)


async def test_what_is_nearly_done_is_done_and_another_replica_goes_on(tmp_path: Path, programs: Programs) -> None:
    async with world(tmp_path, programs) as here:
        bot = here.started("one")
        await connected(here)
        name, thread, ts = await a_card(here, "set-0")
        since = len(here.slack.messages(ROOM))
        slow = here.cluster.slow()
        await here.slack.slash("ana", ROOM, f"/calico {WORDS}")
        await here.slack.slash("ana", ROOM, "/calico ipam show")
        await here.slack.click("bo", ROOM, ts, "fix_approve")
        await here.slack.wait_for(lambda: len(here.slack.messages(ROOM)) == since + 2)
        other = here.started("two")
        await connected(here, 2)
        bot.signal(signal.SIGTERM)
        await connected(here)
        bot.signal(signal.SIGTERM)  # who is impatient changes nothing
        await here.slack.slash("cleo", ROOM, "/calico fixes")
        slow.go.set()
        await ends_well(bot)
        shown = await answered(here, since=since)
        assert replies(here, shown) == [1, 1, 1]
        assert here.room.posted(IN_USE)
        assert here.room.posted("approved", thread) and here.room.buttons(thread, ts) == []
        assert str((await here.room.store.get(name)).status.phase) == "Approved"
        await here.room.whisper("cleo", name)
        await here.slack.slash("cleo", ROOM, f"/calico {WORDS}")
        await answered(here, since=since + 2)
        assert Journal(tmp_path / "one").unfinished() == []
        other.signal(signal.SIGTERM)
        await ends_well(other)
        assert len(here.slack.messages(ROOM)) == since + 3


async def test_what_takes_longer_says_so_and_is_answered_by_the_next_one(tmp_path: Path, programs: Programs) -> None:
    async with world(tmp_path, programs) as here:
        bot = here.started()
        await connected(here)
        resource = here.cluster.server._resource

        async def slowly(request: web.Request, user: User, target: Target) -> web.StreamResponse:
            if user.name == named(BOT) and "watch" not in request.query:
                await asyncio.sleep(4)  # of the 5 s that a look is given
            return await resource(request, user, target)

        here.cluster.server._resource = slowly  # type: ignore[method-assign]
        for words in ("keep shop/cart shop/db", "delete ippool default-ipv4-ippool", f"policy {WORDS[4:]}"):
            assert (await here.slack.mention("cleo", ROOM, f"@calico {words}")).result == "ok"
        keep, delete, policy = (one["ts"] for one in here.slack.messages(ROOM))
        why = None  # a slash command is answered in the channel
        await here.slack.wait_for(lambda: all(here.room.posted("looking", ts) for ts in (keep, delete)))
        await here.slack.slash("ana", ROOM, f"/calico {WORDS}")
        await here.slack.wait_for(lambda: here.room.posted("looking"))
        bot.signal(signal.SIGTERM)
        await ends_well(bot)
        ends = {ts: how_it_ended(here, ts) for ts in (why, keep, delete, policy)}
        # A bot that comes late to its stop, since its machine is busy, may have answered the quickest of them by then.
        assert KEPT in ends.values() and all(ends[ts] in (KEPT, ANSWERED) for ts in (why, keep, policy)), ends
        assert ends[delete] in (STOPPED, ANSWERED), ends
        here.cluster.server._resource = resource  # type: ignore[method-assign]
        async with here.bot():
            for ts, answer in ((why, ANSWER), (keep, KEEP), (policy, f"5432{POLICY}")):
                if ends[ts] == KEPT:
                    await here.slack.wait_for(lambda ts=ts, answer=answer: here.room.posted(answer, ts))
            if ends[why] == KEPT:
                assert replies(here, await answered(here)) == [1, 1, 1]
        assert [how_it_ended(here, ts) for ts in (why, keep, delete)] == [ANSWERED, ANSWERED, ends[delete]]
        assert how_it_ended(here, policy) == ends[policy], "what one person was told stays"
        assert Journal(tmp_path / "bot").unfinished() == []


async def test_what_came_before_a_stop_is_acknowledged(tmp_path: Path, programs: Programs) -> None:
    async with world(tmp_path, programs) as here:
        bot = here.started()
        await connected(here)
        slow = here.cluster.slow()
        asked = asyncio.ensure_future(here.slack.slash("cleo", ROOM, "/calico fixes"))
        await until(lambda: Journal(tmp_path / "bot").unfinished())
        bot.signal(signal.SIGTERM)
        assert (await asked).result == "ok"
        slow.go.set()
        await ends_well(bot)
        await here.room.whisper("cleo", "There are no fix requests")


async def test_a_kill_leaves_nobody_without_an_answer_or_a_word(tmp_path: Path, programs: Programs) -> None:
    """Said by each way, with a message already and without one; and what may have done something is not done again."""
    async with world(tmp_path, programs) as here:
        bot = here.started()
        await connected(here)
        slow = here.cluster.slow()
        said = ("fixes", "fixes off it is enough", "policy shop/cart shop/db 80/tcp", "ipam release --ip 10.244.1.7")
        for words in said:
            assert (await here.slack.mention("bo", ROOM, f"@calico {words}")).result == "ok"
        mentioned = [one["ts"] for one in here.slack.messages(ROOM)]
        asked = (("ana", "ipam show"), ("ana", "delete ippool default-ipv4-ippool"), ("cleo", f"policy {WORDS[4:]}"))
        await asyncio.gather(*(here.slack.slash(user, ROOM, f"/calico {words}") for user, words in asked))
        await here.slack.wait_for(lambda: here.room.posted("looking", mentioned[3]))
        bot.signal(signal.SIGKILL)
        await bot.ended()
        await connected(here, 0)
        assert len(Journal(tmp_path / "bot").unfinished()) == 7
        slow.go.set()
        async with here.bot():
            await here.slack.wait_for(lambda: here.room.posted(IN_USE))
            await here.slack.wait_for(lambda: here.room.posted(f"5432{POLICY}"))
            await here.slack.wait_for(lambda: here.room.posted(f"80{POLICY}", mentioned[2]))
            await here.slack.wait_for(lambda: here.room.posted(STOPPED, mentioned[3]))
            await here.slack.wait_for(lambda: len(here.room.told("bo")) == 2)
            await until(lambda: not Journal(tmp_path / "bot").unfinished())
        assert [sum(one in text for text in here.room.told("bo")) for one in ("There are no fix", STOPPED)] == [1, 1]
        assert sum(STOPPED in one for one in texts(here.room)) == 1, "of delete"
        assert not (await Switch(here.room.store).read()).off()
        assert not any(":mag:" in one for one in texts(here.room))


async def test_what_kills_the_bot_is_answered_anew_once(tmp_path: Path, programs: Programs) -> None:
    async with world(tmp_path, programs) as here:
        slow = here.cluster.slow()
        for begun in range(2):
            bot = here.started()
            await connected(here)
            if not begun:
                await here.slack.slash("ana", ROOM, "/calico ipam show")
                await here.slack.wait_for(lambda: here.room.posted("looking"))
            await until(lambda again=bool(begun): Journal(tmp_path / "bot").unfinished()[0].again is again)
            bot.signal(signal.SIGKILL)
            await bot.ended()
            await connected(here, 0)
        async with here.bot():
            await here.slack.wait_for(lambda: here.room.posted(STOPPED))
        slow.go.set()
        assert Journal(tmp_path / "bot").unfinished() == []


async def test_it_ends_while_slack_says_nothing_and_the_next_one_tells(tmp_path: Path, programs: Programs) -> None:
    async with world(tmp_path, programs) as here:
        bot = here.started()
        await connected(here)
        _, thread, ts = await a_card(here, "set-0")
        since = len(here.slack.messages(ROOM))
        slow = here.cluster.slow()
        await here.slack.slash("ana", ROOM, f"/calico {WORDS}")
        await here.slack.slash("ana", ROOM, "/calico ipam show")
        await here.slack.click("cleo", ROOM, ts, "fix_approve")  # who may not
        await here.slack.wait_for(lambda: len(here.slack.messages(ROOM)) == since + 2)
        await here.slack.wait_for(lambda: here.room.posted("approving: <@U0CLEO> clicked", thread))
        here.slack.faults.hush()
        slow.go.set()
        bot.signal(signal.SIGTERM)
        await ends_well(bot)
        here.slack.faults.clear()
        async with here.bot():
            shown = await answered(here, since=since)
            await here.room.whisper("cleo", "You may not approve", thread)
            await here.slack.wait_for(lambda: here.room.buttons(thread, ts) == BOTH)
            await here.slack.wait_for(
                lambda: any("ipam show" in one and IN_USE in one for one in map(_all_text, here.slack.messages(ROOM)))
            )
        assert (replies(here, shown), len(here.slack.messages(ROOM))) == ([1, 1, 1], since + 2)
        assert len(here.room.told("cleo", thread)) == 1
        assert Journal(tmp_path / "bot").unfinished() == []
