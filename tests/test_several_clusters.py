"""One bot, two clusters, in a local Slack: each question, card and click is of one of them, and what happens to one
does not happen to the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bot import speech
from bot.asking import with_text
from bot.errors import UserError
from bot.journal import Click, Job, Journal
from bot.line import PLACES
from bot.reply.block_kit import meant, value
from bot.served import Desks, Served
from bot.words import Asked
from fixes.request import FixRequest, Phase
from fixes.store import FixStore
from lab.slack import LocalSlack
from tests.answers import well, wrong_mac
from tests.deployed import ADMINISTRATOR, BOT
from tests.fix_cluster import FixCluster, fix_cluster
from tests.fix_samples import a_spec
from tests.test_bot_slack import ROOM, Answers, Room, _all_text
from tests.test_load import until

PROD, STAGING = "prod", "staging"


class Cluster:
    """One of the two."""

    def __init__(self, name: str, cluster: FixCluster, store: FixStore, own: FixStore) -> None:
        """store: of an administrator. own: the bot's, with the rights of its account."""
        self.name = name
        self.cluster = cluster
        self.store = store
        self.own = own
        self.answers = Answers()
        self.answers.answer = msgspec.structs.replace(wrong_mac(), cluster=name)
        self.judged: list[str] = []

    async def judge(self, asked: Asked) -> Any:
        self.judged.append(str(asked))
        raise UserError(f"{self.name} has nothing to say about {asked}.")

    async def the_request(self) -> FixRequest:
        (found,) = await self.store.all()
        return found


class Two(Room):
    """A local Slack, and the bot of two clusters in it."""

    prod: Cluster
    staging: Cluster
    journal: Journal

    def clusters(self, store: FixStore) -> list[Served]:
        return [
            Served(
                name=one.name,
                investigate=one.answers,
                judge=one.judge,
                context=self.context,
                store=one.own,
                approvers=self.approvers,
            )
            for one in (self.prod, self.staging)
        ]

    async def card_in(self, name: str) -> dict[str, Any]:
        """The card in the thread of the answer of this cluster."""
        parent = await self.slack.wait_for(
            lambda: next((one for one in self.slack.messages(ROOM) if f"[{name}]" in _all_text(one)), None)
        )
        assert parent is not None
        card = await self.slack.wait_for(lambda: self.posted("Approve", parent["ts"]))
        assert card is not None
        return card


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    async with contextlib.AsyncExitStack() as stack:
        slack = await stack.enter_async_context(LocalSlack())
        made: dict[str, Cluster] = {}
        for name in (PROD, STAGING):
            (tmp_path / name).mkdir()
            cluster = await stack.enter_async_context(fix_cluster(tmp_path / name))
            stores = [await stack.enter_async_context(cluster.store(account)) for account in (ADMINISTRATOR, BOT)]
            made[name] = Cluster(name, cluster, *stores)
        room = Two("socket", slack, made[PROD].cluster, made[PROD].store, tmp_path / "state")
        room.prod, room.staging = made[PROD], made[STAGING]
        yield room


QUESTION = "why shop/cart shop/db 5432/tcp"


async def test_a_question_is_asked_of_the_cluster_it_names_and_its_fix_is_done_there_alone(two: Two) -> None:
    async with two.bot():
        await two.ask(f"/calico {QUESTION} --cluster staging")
        card = await two.card_in(STAGING)
        assert "[staging]" in _all_text(card)
        assert (two.prod.answers.asked, two.staging.answers.asked) == ([], ["shop/cart shop/db 5432/tcp"])
        assert await two.prod.store.all() == []
        request = await two.staging.the_request()
        await two.slack.click("bo", ROOM, card["ts"], "fix_approve")
        await two.slack.wait_for(lambda: two.posted("approved, about to be done", card["thread_ts"]))
        assert (await two.staging.the_request()).status.phase is Phase.APPROVED
        two.staging.answers.answer = well()
        await two.staging.store.transition(request.name, Phase.RUNNING)
        await two.staging.store.transition(request.name, Phase.VERIFIED, message="It is right.")
        note = await two.slack.wait_for(lambda: two.posted(":white_check_mark: verified", card["thread_ts"]))
        assert note is not None and note["text"].endswith("[staging]")
        assert two.prod.answers.asked == [], "the second look is of the same cluster"


async def test_without_a_name_it_is_the_first_or_the_channels(two: Two) -> None:
    async with two.bot() as app:
        await two.ask(f"/calico {QUESTION}")
        await two.card_in(PROD)
        assert len(two.prod.answers.asked) == 1
        app._desks = Desks(list(app._desks), {two.slack.channel_id(ROOM): STAGING})
        await two.slack.mention("ana", ROOM, f"@calico {QUESTION}")
        await two.slack.wait_for(lambda: two.staging.answers.asked)
        await two.slack.mention("ana", ROOM, f"@calico {QUESTION} --cluster prod")
        await two.slack.wait_for(lambda: len(two.prod.answers.asked) == 2)
        assert len(two.staging.answers.asked) == 1


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (f"{QUESTION} --cluster stagign", "Did you mean staging?"),
        ("fixes --cluster x", "There is: prod, staging."),
        (f"{QUESTION} --cluster", "Name one cluster"),
        ("policy a b --cluster=nowhere", "There is: prod, staging."),
        ("approve fx-abcdefgh --cluster nowhere", "There is: prod, staging."),
    ],
)
async def test_a_cluster_that_is_not_served_is_told_with_those_that_are(two: Two, said: str, told: str) -> None:
    async with two.bot():
        delivery = await two.slack.slash("ana", ROOM, f"/calico {said}")
        assert delivery.result == "ok"
        assert await two.whisper("ana", told)
        await two.slack.mention("ana", ROOM, f"@calico {said}")
        await two.slack.wait_for(lambda: len([one for one in two.told("ana") if told in one]) == 2)
    assert two.prod.answers.asked == two.staging.answers.asked == []


async def test_a_request_in_words_is_looked_for_in_all_clusters(two: Two) -> None:
    async with two.bot():
        request = await two.staging.store.create(a_spec(datetime.now(UTC)))
        await two.ask(f"/calico fixes show {request.name}")
        assert "[staging]" in await two.whisper("ana", request.spec.title)
        await two.ask(f"/calico approve {request.name}", user="bo")
        assert (await two.whisper("bo", f"{request.name} is")).endswith("[staging]")
        assert (await two.staging.the_request()).status.phase is Phase.APPROVED
        await two.ask("/calico approve fx-abcdefgh", user="bo")
        assert (await two.whisper("bo", "I do not know a fix request fx-abcdefgh")).endswith("[prod]")
        await two.ask(f"/calico cancel {request.name} --cluster prod", user="bo")
        assert await two.whisper("bo", f"I do not know a fix request {request.name}")
        assert (await two.staging.the_request()).status.phase is Phase.APPROVED


async def test_every_word_is_about_the_cluster_it_names(two: Two) -> None:
    async with two.bot():
        await two.ask("/calico policy shop/cart shop/db --cluster staging")
        assert (await two.whisper("ana", "staging has nothing to say")).endswith("[staging]")
        assert (two.prod.judged, two.staging.judged) == ([], ["shop/cart shop/db"])
        await two.ask("/calico fixes off --cluster staging maintenance", user="bo")
        assert "[staging]" in await two.whisper("bo", "Fixes are off")
        await two.ask("/calico fixes", user="ana")
        assert "switched off" not in await two.whisper("ana", "There are no fix requests")
        await two.ask("/calico fixes --cluster staging", user="ana")
        assert "[staging]" in await two.whisper("ana", "fixes are switched off by U0BO")


async def test_one_cluster_that_is_gone_takes_nobody_along(two: Two) -> None:
    async with two.bot():
        await two.ask(f"/calico {QUESTION} --cluster staging")
        card = await two.card_in(STAGING)
        await two.staging.cluster.server.stop()
        two.staging.answers.answer = UserError("The API server cannot be reached, so nothing can be looked at.")
        await two.ask(f"/calico {QUESTION} --cluster staging")
        assert await two.answered("The API server cannot be reached, so nothing")
        await two.slack.click("bo", ROOM, card["ts"], "fix_approve")
        assert (await two.whisper("bo", "decided nothing that I know of", card["thread_ts"])).endswith("[staging]")
        await two.ask("/calico approve fx-abcdefgh", user="bo")
        assert await two.whisper("bo", "I do not know where fx-abcdefgh is: staging cannot be asked now")
        request = await two.prod.store.create(a_spec(datetime.now(UTC)))
        await two.ask(f"/calico approve {request.name}", user="bo")
        assert (await two.whisper("bo", f"{request.name} is")).endswith("[prod]")
        assert (await two.prod.the_request()).status.phase is Phase.APPROVED


async def test_questions_that_hang_in_one_cluster_keep_nobody_of_another_waiting(two: Two) -> None:
    async with two.bot():
        two.staging.answers.go.clear()
        for number in range(PLACES):
            await two.ask(f"/calico why shop/cart-{number} shop/db --cluster staging")
        assert await until(lambda: len(two.staging.answers.asked) == PLACES // 2)
        await two.ask(f"/calico {QUESTION} --cluster prod")
        await two.card_in(PROD)
        two.staging.answers.go.set()
        await two.slack.wait_for(lambda: len(two.staging.answers.asked) == PLACES)


async def test_a_question_that_was_accepted_is_answered_after_a_restart_where_it_was_asked(two: Two) -> None:
    journal = Journal(two.state)
    at = {"user": two.slack.user_id("ana"), "channel": two.slack.channel_id(ROOM)}
    journal.accept(Job(id="one", words="shop/cart shop/db", cluster=STAGING, **at))
    journal.accept(Job(id="two", words="shop/cart shop/web", **at))  # of a bot that knew one cluster
    journal.accept(Job(id="three", words="shop/cart shop/db", cluster="gone", **at))
    async with two.bot():
        await two.slack.wait_for(lambda: two.prod.answers.asked and two.staging.answers.asked)
        assert two.staging.answers.asked == ["shop/cart shop/db"]
        assert two.prod.answers.asked == ["shop/cart shop/web"]
        assert await two.whisper("ana", "I do not serve a cluster 'gone'")
        await two.slack.wait_for(lambda: not Journal(two.state).unfinished())


async def test_a_click_of_a_bot_that_knew_one_cluster_is_decided_where_its_request_is(two: Two) -> None:
    request = await two.staging.store.create(a_spec(datetime.now(UTC)))
    click = Click(
        id="old",
        request=request.name,
        to=Phase.APPROVED,
        user=two.slack.user_id("bo"),
        team=two.slack.workspace.config.team.id,
        channel=two.slack.channel_id(ROOM),
    )
    Journal(two.state).accept(click)
    async with two.bot():
        async with asyncio.timeout(10):
            async for _, seen in two.staging.store.watch():
                if seen.status.phase is Phase.APPROVED:
                    break
    assert meant("fx-abcdefgh") == ("fx-abcdefgh", "")
    assert meant(value("fx-abcdefgh", "kubernetes-admin@kubernetes")) == (
        "fx-abcdefgh",
        "kubernetes-admin@kubernetes",
    )


@pytest.mark.parametrize(
    ("text", "rest", "cluster"),
    [
        ("why shop/a shop/b --cluster prod", ["shop/a", "shop/b"], "prod"),
        ("<@U0CALICO> why can't shop/a reach shop/b --cluster prod?", ["shop/a", "shop/b"], "prod"),
        ("why --cluster=prod shop/a shop/b 80/tcp", ["shop/a", "shop/b", "80/tcp"], "prod"),
        ("why shop/a shop/b —cluster prod", ["shop/a", "shop/b"], "prod"),
        ("`why shop/a shop/b --cluster prod`", ["shop/a", "shop/b"], "prod"),
        ("can shop/a reach shop/b --cluster arn:aws:eks:eu-1:1:cluster/prod", ["shop/a", "shop/b"],
         "arn:aws:eks:eu-1:1:cluster/prod"),
        ("ipam show --cluster prod --show-blocks", ["show", "--show-blocks"], "prod"),
        ("reject fx-abcdefgh too late --cluster prod", ["fx-abcdefgh", "too", "late"], "prod"),
        ("why shop/a shop/b", ["shop/a", "shop/b"], ""),
    ],
)  # fmt: skip
def test_the_cluster_of_a_word(text: str, rest: list[str], cluster: str) -> None:
    said = speech.understand(text)
    assert (said.rest, said.cluster) == (rest, cluster)


YAML = "```\nkind: NetworkPolicy\nargs: [--cluster, prod]\nname: x --cluster prod\n```"


def test_what_stands_in_yaml_names_no_cluster() -> None:
    said = speech.understand(f"apply {YAML}")
    assert (said.cluster, said.written) == ("", YAML)
    said = speech.understand(f"apply --cluster staging {YAML}")
    assert (said.cluster, said.written.strip()) == ("staging", YAML)
    said = speech.understand(f"apply {YAML} --cluster staging")
    assert (said.cluster, said.written.strip()) == ("staging", YAML)
    patch = '{"metadata": {"annotations": {"a": "x --cluster prod"}}}'
    said = speech.understand(f"patch ipp x -p '{patch}' --cluster staging")
    assert (said.cluster, with_text(said.written)) == ("staging", (["ipp", "x", "-p"], patch))


@pytest.mark.parametrize("text", ["why a b --cluster", "why a b --cluster=", "why a b --cluster x --cluster y"])
def test_a_cluster_without_a_name_or_two_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="Name one cluster"):
        speech.understand(text)
