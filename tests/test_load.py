"""Many people ask at once: each is heard within Slack's 3 s and answered once, in turn, and nothing stays behind."""

from __future__ import annotations

import asyncio
import platform
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from bot.line import PLACES, WATCHES
from bot.slack import MESSAGE_EVERY_S
from lab.slack.workspace import Message
from tests.answers import well
from tests.test_bot_slack import ROOM, Room, _all_text, room

__all__ = ["room"]

BURST = 100
EACH = 4  # messages of an answer that is `well`: its own, and below it the path, the evidence, what was seen
ASKED = re.compile(r"why `(shop/cart shop/db \d+/tcp)`")
BEFORE = re.compile(r"(\d+) are before it")


def words(number: int) -> str:
    return f"shop/cart shop/db {1000 + number}/tcp"


def public(room: Room) -> list[Message]:
    return [one for one in room.slack.workspace.messages.values() if not one.viewer]


def ended(room: Room) -> Counter[str]:
    """Questions whose message has become an answer."""
    texts = [_all_text(one) for one in room.slack.messages(ROOM)]
    return Counter(found[1] for text in texts if ":mag:" not in text and (found := ASKED.search(text)))


def left_open() -> tuple[int, int]:
    """Tasks, and files of this process."""
    return len(asyncio.all_tasks()), sum(1 for _ in Path("/proc/self/fd").iterdir())


async def until(predicate: Callable[[], bool], seconds: float = 10) -> bool:
    """For what no message tells of."""
    for _ in range(int(seconds / 0.02)):
        if predicate():
            return True
        await asyncio.sleep(0.02)
    return False


async def test_a_burst_is_heard_at_once_and_answered_in_turn(room: Room) -> None:
    room.answers.answer = well()
    left = []
    async with room.bot():
        for burst in (range(BURST), range(BURST, 2 * BURST)):
            room.answers.go.clear()
            asked = await asyncio.gather(*(room.slack.slash("ana", ROOM, f"/calico why {words(one)}") for one in burst))
            assert {one.result for one in asked} == {"ok"}, "Slack waits for 3 s"
            print(
                f"\n{room.mode}: {BURST} at once, acknowledged within {max(one.ack_ms or 0.0 for one in asked):.0f} ms"
            )
            told = [int(found[1]) for one in asked if one.body and (found := BEFORE.search(str(one.body)))]
            assert sorted(told) == list(range(PLACES, BURST)), "who waits is told so, and how many are before"
            assert len(room.answers.asked) <= burst.start + PLACES
            room.answers.go.set()
            await room.slack.wait_for(lambda: len(public(room)) == burst.stop * EACH, 120)  # noqa: B023
            assert await until(lambda: not list((room.state / "journal/jobs").iterdir()))
            left.append(left_open())
    assert ended(room) == Counter({words(number): 1 for number in range(2 * BURST)})
    assert len(room.answers.asked) == 2 * BURST
    done = list((room.state / "journal").rglob("*.json"))
    assert len(done) == 2 * BURST and sum(one.stat().st_blocks for one in done) == 0
    (tasks, files), (tasks_then, files_then) = left
    assert tasks_then < tasks + PLACES and files_then < files + 2 * PLACES, "kept connections aside nothing grows"


async def test_who_mentions_the_bot_is_told_how_many_are_before(room: Room) -> None:
    async with room.bot():
        room.answers.go.clear()
        for number in range(PLACES):
            assert not (await room.ask(f"/calico why {words(number)}")).body, "nobody waits yet"
        await room.slack.mention("bo", ROOM, f"@calico why {words(PLACES)}")
        thread = next(one.ts for one in public(room) if not one.by_bot)
        assert f"{PLACES} are before it" in await room.whisper("bo", "in its turn", thread)
        room.answers.go.set()
        await room.slack.wait_for(lambda: len(room.answers.asked) == PLACES + 1)


async def test_nobody_waits_for_who_watches_a_flow(room: Room) -> None:
    room.answers.answer = well()
    async with room.bot():
        room.answers.go.clear()
        for number in range(WATCHES + 1):
            watching = await room.ask(f"/calico why {words(number)} watch 60")
        assert BEFORE.search(str(watching.body)), "more of them wait for each other"
        assert await until(lambda: len(room.answers.asked) == WATCHES)
        assert not (await room.ask(f"/calico why {words(PLACES)}")).body
        assert await until(lambda: room.answers.asked[-1] == words(PLACES))
        room.answers.go.set()
        assert await until(lambda: len(room.answers.asked) == WATCHES + 2)


async def test_pictures_are_left_out_while_others_wait_and_their_answers_say_so(room: Room) -> None:
    async with room.bot():
        room.answers.go.clear()
        await asyncio.gather(*(room.ask(f"/calico why {words(number)}") for number in range(2 * PLACES)))
        room.answers.go.set()

        def drawn() -> int:
            return sum(bool(one.files) for one in public(room))

        def told() -> int:
            return sum("not drawn, since others wait" in str(one.blocks) for one in public(room))

        await room.slack.wait_for(lambda: drawn() + told() == 2 * PLACES, 60)
        assert drawn() > 0 < told()


async def test_a_channel_that_takes_a_message_a_second_loses_none(room: Room) -> None:
    """Of who goes on where Slack refuses it shows no more, so the bot waits as long as it is told, and slows down."""
    room.slack.faults.rate_limit = True
    room.answers.answer = well()
    count = 3
    async with room.bot():
        await asyncio.gather(*(room.ask(f"/calico why {words(number)}") for number in range(count)))
        await room.slack.wait_for(lambda: len(public(room)) == count * EACH, 60)
    assert ended(room) == Counter({words(number): 1 for number in range(count)})
    posts = [call for call in room.slack.calls if call.method == "chat.postMessage"]
    refused = [call for call in posts if not call.ok]
    assert len(posts) == count * EACH + len(refused)
    assert 1 <= len(refused) <= 2, "who was refused does not go on as before"
    assert (
        min(after.at - before.at for before, after in zip(posts[-4:], posts[-3:], strict=False)) > 0.9 * MESSAGE_EVERY_S
    )


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no other C library keeps what is free in between")
@pytest.mark.parametrize(
    ("size", "every_s"), [(16_000, 0.01), (64_000, 3600)], ids=["each minute", "large ones at once"]
)
def test_what_is_free_is_given_back_while_what_is_used_lies_in_between(size: int, every_s: float) -> None:
    program = f"""
import time
from facts import heap

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

heap.keep_small({every_s})
kept = []
before = resident()
for _ in range(64_000_000 // {size}):  # a small piece above each
    kept += [b"x" * {size}, bytes(1000)]
assert resident() > before + 50_000
del kept[::2]
while resident() > before + 30_000:
    time.sleep(0.01)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=Path(__file__).parents[1])
