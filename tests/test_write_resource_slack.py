"""Resources written down in Slack: a slash command of several lines becomes a card with the difference, and is done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bot.asking import with_text
from bot.resources.manifest import from_slack
from bot.settings import Settings
from bot.sources.kubernetes import Cluster
from bot.told import Context
from fixes.calico import Calico
from fixes.executor import Executor
from fixes.hands import ClusterHands
from fixes.request import Phase
from lab.slack import LocalSlack
from tests.deployed import ADMINISTRATOR, BOT, CLUSTER_FIXER
from tests.fix_cluster import fix_cluster
from tests.test_bot_slack import ROOM, Room, _all_text
from tests.test_capture_slack import files
from tests.test_write_resource import DENY, fill


@pytest.fixture(params=["socket", "http"])
async def room(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Room]:
    async with LocalSlack() as slack, fix_cluster(tmp_path) as cluster, cluster.store(ADMINISTRATOR) as store:
        fill(cluster, "crd.projectcalico.org")
        room = Room(request.param, slack, cluster, store, tmp_path / "state")
        settings = Settings(kubeconfig=cluster.kubeconfig(BOT))
        async with Cluster(settings) as calico, cluster.store(BOT) as own:

            def context(whoami: Any, progress: Any, written: str) -> Context:
                return Context(cluster=calico, probes=Any, store=own, settings=settings, whoami=whoami,
                               investigate=Any, progress=progress, written=written)  # type: ignore[arg-type]  # fmt: skip

            room.context = context
            yield room
        refused = [(call.method, call.error) for call in slack.calls if call.error]
        assert not refused, "the bot sent what Slack does not take"


@contextlib.asynccontextmanager
async def fixer(room: Room) -> AsyncGenerator[None]:
    async with room.cluster.store(CLUSTER_FIXER) as store:
        executor = Executor(ClusterHands(Calico(store.api, environment={})), store, room.approvers)
        work = asyncio.ensure_future(executor.run())
        try:
            yield
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


async def test_a_policy_in_a_slash_command_becomes_a_card_and_is_done(room: Room) -> None:
    async with room.bot(), fixer(room):
        await room.ask(f"/calico apply ```{DENY.replace('&', '&amp;')}```")
        answer = await room.answered("Create GlobalNetworkPolicy deny-web")
        card = await room.slack.wait_for(lambda: room.posted("+  selector: app == 'web'", answer["ts"]))
        assert card is not None
        text = _all_text(card)
        assert "As counted when it was asked for: It is about 3 of 9 pods" in text and "It lets nothing in" in text
        assert "calico-why delete globalnetworkpolicy deny-web" in text
        await room.slack.click("ana", ROOM, card["ts"], "fix_approve")
        await room.whisper("ana", "You asked for", answer["ts"])  # four eyes
        await room.slack.click("bo", ROOM, card["ts"], "fix_approve")
        await room.slack.wait_for(lambda: room.posted("is what was asked for", answer["ts"]))
    [request] = await room.store.all()
    assert request.status.phase is Phase.VERIFIED
    assert request.status.second_look is None  # there was no question to ask again
    stored = room.cluster.objects.get("globalnetworkpolicies", "deny-web")
    assert stored["spec"]["selector"] == "app == 'web'"


async def test_a_mention_is_read_through_what_slack_makes_of_names_and_quotes(room: Room) -> None:
    async with room.bot(), fixer(room):
        text = DENY.replace("projectcalico.org/v3", "<http://projectcalico.org/v3|projectcalico.org/v3>")
        await room.slack.mention("ana", ROOM, "create\n" + text.replace("'web'", "‘web’"))
        await room.slack.wait_for(lambda: any("fx-" in _all_text(one) for one in room.slack.messages(ROOM)) or
                                  any(room.posted("Create GlobalNetworkPolicy deny-web", one["ts"])
                                      for one in room.slack.messages(ROOM)))  # fmt: skip
        [request] = await room.store.all()
        assert "app == 'web'" in request.spec.arguments["manifest"]


async def test_what_is_wrong_is_told_and_nobody_is_asked(room: Room) -> None:
    async with room.bot():
        for said, why in (
            ("create ```apiVersion: projectcalico.org/v3\nkind: IPPool\n metadata: x```", "line 3"),
            ("create", "create -f FILE"),
            ("create -f pool.yaml", "I cannot read pool.yaml from Slack"),
            ("delete ipamblock x", "IPAM's blocks are not written by hand"),
            ("delete ipamhandle x -o json", "IPAM's handles are not written by hand"),
            ("patch ipp x -p", "Say what is to be changed"),
        ):
            await room.ask(f"/calico {said}")
            await room.whisper("ana", why)
        assert not room.slack.messages(ROOM), "words that cannot be meant are nobody else's business"
        for said, why in (
            (f"create ```{DENY.replace('selector', 'selectr')}```", "did you mean selector?"),
            ("delete ippool default-ipv4-ippool", "type its name: delete ippool default-ipv4-ippool --confirm"),
        ):
            await room.ask(f"/calico {said}")
            await room.answered(why)
        many = [DENY.replace("deny-web", f"{'w' * 150}-{one}").replace("selector", "selectr") for one in range(20)]
        await room.ask("/calico apply " + "\n---\n".join(many))
        answer = await room.answered("resource 1: Calico refuses")
        await room.slack.wait_for(lambda: files(room.slack, answer["ts"]))
        [(name, content)] = files(room.slack, answer["ts"])
        assert name == "sentences.txt" and b"resource 20: Calico refuses" in content
        await room.ask("/calico patch ipp default-ipv4-ippool --tpye json -p '[]'")
        await room.whisper("ana", "did you mean --type?")
    assert await room.store.all() == []


async def test_a_patch_and_a_deletion(room: Room) -> None:
    async with room.bot(), fixer(room):
        await room.ask('/calico patch ipp default-ipv4-ippool -p \'{"spec": {"natOutgoing": false}}\' --type merge')
        answer = await room.answered("Change IPPool default-ipv4-ippool")
        card = await room.slack.wait_for(lambda: room.posted("+  natOutgoing: false", answer["ts"]))
        assert card is not None
        await room.slack.click("bo", ROOM, card["ts"], "fix_approve")
        await room.slack.wait_for(lambda: room.posted("is what was asked for", answer["ts"]))
        assert room.cluster.objects.get("ippools", "default-ipv4-ippool")["spec"]["natOutgoing"] is False
        await room.ask("/calico delete ippool default-ipv4-ippool --confirm default-ipv4-ippool")
        answer = await room.answered("Delete IPPool default-ipv4-ippool")
        card = await room.slack.wait_for(lambda: room.posted("12 addresses of 10.244.0.0/16 are in use", answer["ts"]))
        assert card is not None


def test_words_and_text_are_told_apart() -> None:
    for written, words, text in (
        ("-n shop\napiVersion: x\n", ["-n", "shop"], "apiVersion: x"),
        ("```a: 1\nb: 2```", [], "a: 1\nb: 2"),
        ("```\na: 1\n``` -n shop", ["-n", "shop"], "a: 1"),
        ("apiVersion: x", [], "apiVersion: x"),
        ("ipp x -p '{\"a\": [1]}' --type json", ["ipp", "x", "-p", "--type", "json"], '{"a": [1]}'),
        ('ipp x --type=json -p [{"op": "remove"}]', ["ipp", "x", "--type=json", "-p"], '[{"op": "remove"}]'),
        ("-f pool.yaml", ["-f", "pool.yaml"], ""),
    ):
        assert with_text(written) == (words, text)


def test_what_slack_makes_of_text_is_undone() -> None:
    assert from_slack("a: “b” <https://a.example/x|a.example/x>, <mailto:a@b.example|a@b.example>") == (
        'a: "b" a.example/x, a@b.example'
    )
    assert from_slack("a: <http://a.example>") == "a: http://a.example"
