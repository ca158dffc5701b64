"""An API server that is gone - killed, cut off, overloaded, silent - costs time and nothing else: everybody is told,
what was clicked is decided or told, cards become true by themselves, and nothing is done twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fixes import executor as executors
from fixes import store as stores
from fixes.approvers import Approvers
from fixes.calico import Calico
from fixes.executor import Executor
from fixes.hands import ClusterHands
from fixes.request import ENDS, FixRequest, Person, Phase
from lab.apiserver import User
from lab.apiserver.requests import Target
from tests.fix_cluster import NAMESPACE, fix_cluster
from tests.own_faults import Wire, World, world
from tests.programs import Programs
from tests.test_bot_slack import ROOM, _all_text
from tests.test_write_resource import fill

BO = Person(id="U0BO", via="slack", entry="U0BO")
BOTH = ["fix_approve", "fix_reject"]
TOLD_S = 25.0  # 5 s for each of the looks that come one after the other, or 15 s for a fix request
BACK_S = 40.0  # the longest pause of whoever watches, the 20 s of a lease, and what it takes then
PUBLIC = ("why shop/cart shop/db 5432/tcp", "ipam show", "node status", "get ippools")
WHISPERED = {"bo": "policy shop/cart shop/db 5432/tcp", "cleo": "fixes"}
TROUBLE = ("API server cannot be reached", "API server answered", "cannot be read")


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    started = Programs()
    yield started
    started.close()


@contextlib.asynccontextmanager
async def gone(here: World, how: str) -> AsyncGenerator[None]:
    """An outage."""
    if how.isdigit():
        with here.refusing(int(how), retry_after_s=1):
            yield
        return
    if how == "refused":
        await here.wire.refuse()
    else:
        here.wire.hush()
    try:
        yield
    finally:
        await here.wire.mend()


async def until(found: Callable[[], Any], seconds: float = BACK_S) -> Any:
    """What is there once it is; of what tells nobody when it changes."""
    async with asyncio.timeout(seconds):
        while not (value := found()):
            await asyncio.sleep(0.05)
        return value


async def answers(here: World) -> dict[str, str]:
    """What becomes of each of these words, asked at the same time."""
    before = {one["ts"] for one in here.slack.messages(ROOM)}
    heard = {user: len(here.room.told(user)) for user in WHISPERED}
    asked = [here.slack.slash("ana", ROOM, f"/calico {words}") for words in PUBLIC]
    asked += [here.slack.slash(user, ROOM, f"/calico {words}") for user, words in WHISPERED.items()]
    assert {one.result for one in await asyncio.gather(*asked)} == {"ok"}

    def found() -> dict[str, str] | None:
        new = [_all_text(one) for one in here.slack.messages(ROOM) if one["ts"] not in before]
        over = [one for one in new if ":mag:" not in one]
        ana = [one for one in over if here.slack.user_id("ana") in one]
        told = {words: next((one for one in ana if words.removeprefix("why ") in one), "") for words in PUBLIC}
        for user, words in WHISPERED.items():
            mine = [one for one in over if here.slack.user_id(user) in one]  # a policy's answer is for everybody
            told[words] = "\n".join([*here.room.told(user)[heard[user] :], *mine])
        return told if all(told.values()) else None

    told = await here.slack.wait_for(found, timeout=TOLD_S)
    assert told is not None
    return told


async def a_card(here: World, **spec: Any) -> tuple[str, str, str]:
    """Somebody asks for a change of the pool: the request's name, and thread and ts of its card."""
    await here.room.ask(f"/calico patch ippool default-ipv4-ippool -p '{json.dumps({'spec': spec})}' --type merge")

    def shown() -> tuple[str, str] | None:
        for parent in here.slack.messages(ROOM):
            for one in here.slack.messages(ROOM, parent["ts"]):
                if f"+  {next(iter(spec))}: " in _all_text(one) and here.room.buttons(parent["ts"], one["ts"]) == BOTH:
                    return parent["ts"], one["ts"]
        return None

    found = await here.slack.wait_for(shown, timeout=TOLD_S)
    assert found is not None
    (name,) = [one.name for one in await here.room.store.all() if one.status.slack and one.status.slack.ts == found[1]]
    return name, *found


def card(here: World, thread: str, ts: str) -> str:
    return next(_all_text(one) for one in here.slack.messages(ROOM, thread) if one["ts"] == ts)


def writes(here: World, user: str = "fixer") -> int:
    """How often the pool was written."""
    calls = [(one.user, one.plural, one.verb) for one in here.cluster.server.calls]
    return calls.count((user, "ippools", "update"))


def holder(here: World) -> str:
    """Who has the fixers' lease."""
    leases = here.cluster.objects.list("leases")
    return str(leases[0]["spec"]["holderIdentity"]) if leases else ""


async def ended(here: World, name: str) -> FixRequest:
    async with asyncio.timeout(BACK_S):
        async for _, request in here.room.store.watch():
            if request.name == name and request.status.phase in ENDS:
                return request
    raise AssertionError


async def test_whoever_asks_while_the_cluster_is_gone_is_told_and_is_answered_once_it_is_back(
    tmp_path: Path, programs: Programs
) -> None:
    async with world(tmp_path, programs) as here:
        await here.wire.refuse()
        async with here.bot() as bot:  # its start needs no cluster
            for how in ("refused", "silent", "503", "429"):
                async with gone(here, how):
                    for words, text in (await answers(here)).items():
                        assert "healthy" not in text and ":white_check_mark:" not in text, text
                        assert any(one in text for one in TROUBLE), f"{how}, {words}: {text}"
                back = await answers(here)
                assert "No fresh packet could be sent" in back[PUBLIC[0]], f"after {how}: {back}"
                assert not [words for words, text in back.items() if any(one in text for one in TROUBLE)]
            assert "Traceback" not in bot.text
