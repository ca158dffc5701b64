"""An API server that is gone - killed, cut off, overloaded, silent - costs time and nothing else: everybody is told,
what was clicked is decided or told, cards become true by themselves, and nothing is done twice."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fixes import executor as executors
from fixes import store as stores
from fixes.calico import CLASSIC, Calico
from fixes.executor import Executor
from fixes.hands import ClusterHands
from fixes.request import ENDS, FixRequest, Person, Phase
from fixes.store import FixStore
from lab.apiserver import User
from lab.apiserver.errors import ApiError
from lab.apiserver.requests import Target
from tests.deployed import BOT, CLUSTER_FIXER, named
from tests.fix_cluster import FixCluster
from tests.fix_samples import a_spec
from tests.own_faults import Wire, World, phase_of, until, world
from tests.programs import Programs
from tests.test_bot_slack import ROOM, _all_text
from tests.test_cluster_fixes import APPROVERS, create, pool_spec, scene

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


async def a_card(here: World, name: str) -> tuple[str, str, str]:
    """Somebody asks for a network set of this name: the request's name, and thread and ts of its card."""
    written = f"kind: GlobalNetworkSet\nmetadata: {{name: {name}}}\nspec: {{nets: [192.0.2.0/24]}}"
    await here.room.ask(f"/calico apply ```apiVersion: projectcalico.org/v3\n{written}```")

    def shown() -> tuple[str, str] | None:
        for parent in here.slack.messages(ROOM):
            for one in here.slack.messages(ROOM, parent["ts"]):
                if name in _all_text(one) and here.room.buttons(parent["ts"], one["ts"]) == BOTH:
                    return parent["ts"], one["ts"]
        return None

    found = await here.slack.wait_for(shown, timeout=TOLD_S)
    assert found is not None
    (made,) = [one.name for one in await here.room.store.all() if one.status.slack and one.status.slack.ts == found[1]]
    return made, *found


def card(here: World, thread: str, ts: str) -> str:
    return next(_all_text(one) for one in here.slack.messages(ROOM, thread) if one["ts"] == ts)


def writes(here: World) -> int:
    """How many network sets the fixers wrote."""
    return here.written.count((named(CLUSTER_FIXER), "globalnetworksets"))


def holder(here: World) -> str:
    """Who has the fixers' lease."""
    leases = here.cluster.objects.list("leases")
    return str((leases[0].get("spec") or {}).get("holderIdentity", "")) if leases else ""


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


async def test_clicks_cards_and_fixes_over_an_outage(tmp_path: Path, programs: Programs) -> None:
    """A silent one, which takes longest: a call about a fix request is given up after 15 s."""
    async with world(tmp_path, programs) as here, here.bot():
        for name in ("fixer-1", "fixer-2"):
            here.fixer(name)
        clicked, approved, cancelled = [await a_card(here, f"set-{number}") for number in range(3)]
        await until(lambda: holder(here))
        here.wire.hush()
        name, thread, ts = clicked
        taken = await here.slack.click("bo", ROOM, ts, "fix_approve")
        assert taken.result == "ok"
        await here.slack.wait_for(lambda: here.room.posted("approving: <@U0BO> clicked", thread))
        # Meanwhile somebody who does reach the cluster decides, of which neither bot nor fixers can know.
        await here.room.store.transition(approved[0], Phase.APPROVED, by=BO)
        await here.room.store.transition(cancelled[0], Phase.CANCELLED, message="by hand")
        (said,) = await here.slack.wait_for(lambda: here.room.told("bo", thread), timeout=TOLD_S)
        assert "So your click has decided nothing that I know of; the card shows its buttons again." in said
        await here.slack.wait_for(lambda: here.room.buttons(thread, ts) == BOTH)
        assert await phase_of(here.room.store, name) == "Pending"
        await here.wire.mend()
        # Nobody does anything: cards become true, and what was approved is done.
        await here.slack.wait_for(lambda: "is what was asked for" in card(here, *approved[1:]), timeout=BACK_S)
        await here.slack.wait_for(lambda: "cancelled" in card(here, *cancelled[1:]), timeout=BACK_S)
        await here.slack.click("bo", ROOM, ts, "fix_approve")
        await here.slack.wait_for(lambda: "is what was asked for" in card(here, thread, ts), timeout=BACK_S)
        assert [one.status.phase for one in [await here.room.store.get(one[0]) for one in (clicked, approved)]] == [
            Phase.VERIFIED,
            Phase.VERIFIED,
        ]
        assert writes(here) == 2


async def test_the_cluster_goes_between_a_fix_and_its_end(tmp_path: Path, programs: Programs) -> None:
    """For longer than a holder keeps the lease: what was done is read by whoever has it then, and not done again."""
    async with world(tmp_path, programs) as here, here.bot():
        fixers = [here.fixer(name) for name in ("fixer-1", "fixer-2")]
        name, thread, ts = await a_card(here, "set-0")
        await until(lambda: holder(here))
        resource = here.cluster.server._resource

        async def cut(request: web.Request, user: User, target: Target) -> web.StreamResponse:
            answer = await resource(request, user, target)
            if here.written[-1:] == [(named(CLUSTER_FIXER), "globalnetworksets")]:
                here.cluster.server._resource = resource  # type: ignore[method-assign]
                await here.wire.refuse()
            return answer

        here.cluster.server._resource = cut  # type: ignore[method-assign]
        await here.slack.click("bo", ROOM, ts, "fix_approve")
        await until(lambda: not here.wire.serving)
        await until(lambda: all("has lost the lease" in one.text for one in fixers if "acts now" in one.text))
        assert await phase_of(here.room.store, name) == "Running"
        await here.wire.mend()
        end = await ended(here, name)
        assert (end.status.phase, writes(here)) == (Phase.VERIFIED, 1)
        assert [event.phase for event in end.status.history] == [Phase.APPROVED, Phase.RUNNING, Phase.VERIFIED]
        await here.slack.wait_for(lambda: "is what was asked for" in card(here, thread, ts), timeout=BACK_S)
        assert [one.text.count("acts now") for one in fixers].count(0) <= 1, (
            "one of two has the lease, whoever is first"
        )


@contextlib.asynccontextmanager
async def a_pool_to_enable(directory: Path) -> AsyncGenerator[tuple[FixCluster, FixStore, Wire, FixStore]]:
    """A cluster with a disabled pool: the cluster, its requests, a wire to it, and the requests through that wire."""
    async with scene(directory) as (cluster, _, _), cluster.store(BOT) as store:
        create(cluster, CLASSIC, "IPPool", "blue", cidr="10.9.0.0/16", disabled=True)
        wire = Wire(int(cluster.url.rpartition(":")[2]))
        await wire.start()
        behind = dataclasses.replace(cluster, url=f"http://127.0.0.1:{wire.port}")
        try:
            async with behind.store(CLUSTER_FIXER) as through:
                yield cluster, store, wire, through
        finally:
            await wire.close()


async def test_a_fixer_keeps_what_it_knows_for_as_long_as_the_cluster_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A node's fixer has no lease to lose. The outage outlasts all its retries, by a clock of hundredths."""
    monkeypatch.setattr(executors, "RETRIES_S", tuple(one / 100 for one in executors.RETRIES_S))
    monkeypatch.setattr(executors, "PATIENT_S", executors.PATIENT_S / 100)
    async with a_pool_to_enable(tmp_path) as (cluster, store, wire, through):

        class Cut(Calico):
            async def replace(self, resource: str, changed: dict[str, Any]) -> dict[str, Any]:
                written = await super().replace(resource, changed)
                await wire.refuse()
                return written

        request = await store.create(a_spec(datetime.now(UTC), **pool_spec()))
        await store.transition(request.name, Phase.APPROVED, by=BO)
        fixer = Executor(ClusterHands(Cut(through.api, environment={})), through, APPROVERS)
        working = asyncio.ensure_future(fixer.run())
        try:
            more = 2 * len(executors.RETRIES_S)
            await until(lambda: caplog.text.count("is read back later") > more)
            assert (await store.get(request.name)).status.phase is Phase.RUNNING
            await wire.mend()
            async with asyncio.timeout(BACK_S):
                async for _, one in store.watch():
                    if one.status.phase in ENDS:
                        break
            assert (one.status.phase, one.status.message.split(";")[0]) == (Phase.VERIFIED, "Pool blue is enabled")
            assert "restarted" not in one.status.message, "it was not"
            assert [(one.user, one.verb) for one in cluster.server.calls if one.resource == "ippools"].count(
                (named(CLUSTER_FIXER), "update")
            ) == 1
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


async def seen_within(store: FixStore, request: FixRequest, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        async for _, one in store.watch():
            if one.name == request.name and one.status.phase is Phase.APPROVED:
                return


async def test_a_watch_that_died_without_a_word_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "SILENT_S", 1.0)  # of a minute between two bookmarks
    async with a_pool_to_enable(tmp_path) as (cluster, store, wire, through):
        request = await store.create(a_spec(datetime.now(UTC), **pool_spec()))
        seeing = asyncio.ensure_future(seen_within(through, request, BACK_S))
        await until(lambda: any(one.verb == "watch" for one in cluster.server.calls))
        wire.forget()
        await store.transition(request.name, Phase.APPROVED, by=BO)
        await seeing


@pytest.mark.parametrize("how", ["ended", "503", "429"])
async def test_nobody_asks_without_a_pause(tmp_path: Path, how: str) -> None:
    """ended: each watch is let in and over at once, as by a proxy that cannot hold one open."""
    async with a_pool_to_enable(tmp_path) as (cluster, store, _, through):
        request = await store.create(a_spec(datetime.now(UTC), **pool_spec()))
        asked: list[float] = []
        resource = cluster.server._resource

        async def at_once(request: web.Request, user: User, target: Target) -> web.StreamResponse:
            if user.name == named(CLUSTER_FIXER):
                asked.append(asyncio.get_running_loop().time())
                if how != "ended":
                    raise ApiError(int(how), "TooManyRequests", "later", {"retryAfterSeconds": 2})
                if "watch" in request.query:
                    return web.Response(body=b"", content_type="application/json")
            return await resource(request, user, target)

        cluster.server._resource = at_once  # type: ignore[method-assign]
        seeing = asyncio.ensure_future(seen_within(through, request, BACK_S))
        await asyncio.sleep(5)  # it is counted for so long
        # In pairs where each watch ends: after half a second, one, two, four. Else when the server asks for it.
        assert 2 <= len(asked) <= (10 if how == "ended" else 4), [round(at - asked[0], 1) for at in asked]
        cluster.server._resource = resource  # type: ignore[method-assign]
        await store.transition(request.name, Phase.APPROVED, by=BO)
        await seeing
