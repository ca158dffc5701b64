"""A card is true at the end, and nothing that decides stays behind, wherever a bot, a click or Slack fails between."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from bot import cards
from fixes.request import Card, FixRequest, Phase
from fixes.store import FixStore, StoreError
from tests.fix_samples import a_spec
from tests.test_bot_slack import ROOM, Room, room

__all__ = ["room"]

BUTTON = "fix_approve"


def with_buttons(room: Room) -> list[str]:
    """ts of every message somebody could approve something by."""
    threads = {one["ts"] for one in room.slack.messages(ROOM)}
    replies = [one for thread in threads for one in room.slack.messages(ROOM, thread)]
    return [one["ts"] for one in replies if BUTTON in str(one.get("blocks"))]


async def test_a_bot_that_dies_before_the_place_of_a_card_is_known_leaves_nothing_to_click(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    placing = asyncio.Event()

    async def never(_: FixStore, name: str, card: Card) -> FixRequest:
        placing.set()
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    monkeypatch.setattr(FixStore, "place", never)
    async with room.bot() as bot:
        await room.ask()
        await asyncio.wait_for(placing.wait(), 10)
        for task in bot._work._tasks:  # as a kill would: at this very line
            task.cancel()
    (request,) = await room.store.all()
    assert (request.status.slack, with_buttons(room)) == (None, [])
    monkeypatch.undo()
    async with room.bot():  # the question is in the journal, and answered to its end now
        _, _, ts = await room.card()
        await room.slack.wait_for(lambda: with_buttons(room) == [ts])
        assert [one.name for one in await room.store.all()] == [request.name]


async def test_a_bot_that_dies_after_it_was_placed_puts_up_no_second_card(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing = asyncio.Event()

    async def never(self: cards.Cards, request: FixRequest) -> None:
        drawing.set()
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(cards.Cards, "draw", never)
    async with room.bot() as bot:
        await room.ask()
        await asyncio.wait_for(drawing.wait(), 10)
        for task in bot._work._tasks:
            task.cancel()
    (request,) = await room.store.all()
    assert request.status.slack is not None
    monkeypatch.undo()
    async with room.bot():
        await room.slack.wait_for(lambda: room.posted("was asked for already", request.status.slack.thread))
        await room.slack.wait_for(lambda: with_buttons(room) == [request.status.slack.ts])


async def test_what_cannot_have_a_card_is_told_with_the_words_that_decide_and_the_answer_goes_on(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(_: FixStore, name: str, card: Card) -> FixRequest:
        raise StoreError("The API server cannot be reached.")

    monkeypatch.setattr(FixStore, "place", silent)
    async with room.bot():
        await room.ask()
        parent = await room.answered()
        await room.slack.wait_for(lambda: room.posted("things checked and well", parent["ts"]))
        (request,) = await room.store.all()
        assert room.posted(f"decided in words: `/calico approve {request.name}`. The API server", parent["ts"])
        assert with_buttons(room) == []
        await room.ask(f"/calico approve {request.name}", "bo")
        await room.whisper("bo", f"{request.name} is approved")


async def test_of_two_bots_that_answer_with_the_same_request_one_puts_up_its_card(room: Room) -> None:
    async with room.bot(), room.bot():
        await asyncio.gather(*(room.ask(user=user) for user in ("ana", "bo", "cleo")))

        def answered() -> bool:
            threads = [one["ts"] for one in room.slack.messages(ROOM)]
            return len(threads) == 3 and all(room.posted("things checked and well", thread) for thread in threads)

        await room.slack.wait_for(answered)
        placed = {one.status.slack.ts for one in await room.store.all() if one.status.slack}
        await room.slack.wait_for(lambda: set(with_buttons(room)) == placed)
        assert len(with_buttons(room)) == len(await room.store.all())


async def test_a_card_leads_to_the_answer_that_asked_for_it(room: Room) -> None:
    async with room.bot():
        await room.ask()
        _, thread, ts = await room.card()
        parent = f"{room.slack.workspace.origin}/archives/{room.slack.channel_id(ROOM)}/p{thread.replace('.', '')}"
        card = await room.slack.wait_for(lambda: room.posted("the answer and its evidence", thread))
        assert card is not None and card["ts"] == ts
        assert "`why shop/cart shop/db 5432/tcp` found it, by" in str(card["blocks"])
        assert f"<{parent}|the answer and its evidence>" in str(card["blocks"])


async def test_a_request_without_a_card_expires_too(room: Room) -> None:
    """Made with kubectl, or by a bot that was killed before it posted anything."""
    async with room.bot():
        request = await room.store.create(a_spec(datetime.now(UTC) - timedelta(minutes=15) + timedelta(seconds=1)))
        assert request.status.slack is None
        async with asyncio.timeout(10):
            async for _, seen in room.store.watch():
                if seen.status.phase is Phase.EXPIRED:
                    break


async def test_a_card_that_slack_does_not_take_is_drawn_again(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "AGAIN_S", (0.05,) * 9)
    async with room.bot():
        await room.ask()
        request, thread, ts = await room.card()
        await room.slack.wait_for(lambda: with_buttons(room) == [ts])
        room.slack.faults.fail("chat.update", "500", times=5)  # the client itself tries three times
        await room.store.transition(request.name, Phase.CANCELLED, message="by hand")
        await room.slack.wait_for(lambda: room.buttons(thread, ts) == [], 20)


async def test_after_a_start_the_cards_of_what_is_over_keep_nothing_else_waiting(room: Room) -> None:
    async with room.bot():
        await room.ask()
        over, _, _ = await room.card()
    await room.store.transition(over.name, Phase.CANCELLED, message="by hand")
    room.slack.faults.fail("chat.update", "timeout")  # which the client takes 15 s to notice
    async with room.bot():
        await room.slack.wait_for(lambda: room.slack.faults.shape()["timeout"] == 0)
        await room.ask()

        def going_on() -> str:
            return next((ts for ts in with_buttons(room) if ts != over.status.slack.ts), "")

        ts = await room.slack.wait_for(going_on)
        (request,) = [one for one in await room.store.all() if one.open]
        await room.store.transition(request.name, Phase.CANCELLED, message="by hand")
        await room.slack.wait_for(lambda: ts not in with_buttons(room))
