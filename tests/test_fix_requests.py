"""An answer with a cause that can be mended becomes a request somebody can approve, and the same answer no second."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from bot.errors import UserError
from bot.fix_requests import at_once, request_fixes, requested
from bot.language import language
from bot.reply.fix_words import fix_words
from engine.diagnosis import diagnose
from engine.rule import CauseRule
from engine.rulebase import load
from facts import Diagnosis, Neighbor, from_builtins
from fixes.kind import kinds
from fixes.request import LIFETIME, Person, Phase, digest_of, moment
from tests.answers import WRONG_MAC, investigation, no_engine, unseen, well, wrong_mac
from tests.deployed import BOT
from tests.fix_cluster import fix_cluster
from tests.fix_samples import ANA, BO, a_spec
from tests.test_language import CHINESE

CASES = Path(__file__).parent / "cases"
NOW = datetime(2026, 11, 22, 22, 4, tzinfo=UTC)


async def test_a_wrong_mac_becomes_a_pending_request(tmp_path: Path) -> None:
    async with fix_cluster(tmp_path) as cluster, cluster.store(BOT, now=lambda: NOW) as store:
        (made,) = await request_fixes(wrong_mac(), store, ANA)
        (request,) = await store.all()
        assert made["metadata"] == {
            "name": request.name,
            "namespace": store.namespace,
            "resourceVersion": request.resource_version,
        }
        spec = request.spec
        assert request.status.phase is Phase.PENDING
        assert (spec.kind, spec.node, spec.requested_by) == ("replace_neighbor", "node-a", ANA)
        assert spec.arguments["seen"] == WRONG_MAC
        assert spec.digest == digest_of(spec)
        assert {one.fact["fact"] for one in spec.evidence} >= {"Leg", "Neighbor"}
        assert moment(spec.expires_at) - moment(spec.requested_at) == LIFETIME
        assert (spec.question, spec.cluster) == ("shop/cart shop/db 5432/tcp", "prod-eu-1")
        assert spec.investigation == wrong_mac().id


async def test_the_same_answer_is_asked_for_once_while_it_is_open(tmp_path: Path) -> None:
    now = NOW
    async with fix_cluster(tmp_path) as cluster, cluster.store(BOT, now=lambda: now) as store:
        (first,) = await requested(wrong_mac(), store, ANA)
        (again,) = await requested(wrong_mac(), store, Person(id="bo", via="kubectl"))
        assert again.name == first.name
        assert again.spec.requested_by == ANA
        await store.transition(first.name, Phase.REJECTED, by=BO)
        (second,) = await requested(wrong_mac(), store, ANA)
        assert second.name != first.name
        now = NOW + LIFETIME + timedelta(seconds=1)  # expired, though nobody has written it down yet
        (third,) = await requested(wrong_mac(), store, ANA)
        assert third.name not in (first.name, second.name)


async def test_what_differs_from_look_to_look_makes_no_second_request(tmp_path: Path) -> None:
    """A leak is older a minute later, and packets are counted anew; the change that is asked for is the same."""
    first_answer = wrong_mac()
    facts = [
        msgspec.structs.replace(one, state="STALE") if isinstance(one, Neighbor) else one
        for one in first_answer.diagnosis.facts
    ]
    changed = [one.id for one in facts]
    ids = dict(zip((one.id for one in first_answer.diagnosis.facts), changed, strict=True))
    causes = tuple(
        msgspec.structs.replace(one, evidence=tuple(ids[name] for name in one.evidence))
        for one in first_answer.diagnosis.causes
    )
    diagnosis = msgspec.structs.replace(first_answer.diagnosis, facts=tuple(facts), causes=causes)
    later = msgspec.structs.replace(first_answer, diagnosis=diagnosis)
    now = NOW
    async with fix_cluster(tmp_path) as cluster, cluster.store(BOT, now=lambda: now) as store:
        (first,) = await requested(first_answer, store, ANA)
        (again,) = await requested(later, store, ANA)
        assert again.name == first.name
        await store.transition(first.name, Phase.APPROVED, by=BO)
        assert [one.name for one in await requested(later, store, ANA)] == [first.name]
        await store.transition(first.name, Phase.RUNNING)
        now = NOW + LIFETIME + timedelta(seconds=1)  # what is being done does not expire
        assert [one.name for one in await requested(later, store, ANA)] == [first.name]
        await store.transition(first.name, Phase.VERIFIED)
        assert [one.name for one in await requested(later, store, ANA)] != [first.name]


@pytest.mark.parametrize("answer", [well, unseen, no_engine])
async def test_other_answers_ask_for_nothing(tmp_path: Path, answer: object) -> None:
    async with fix_cluster(tmp_path) as cluster, cluster.store(BOT) as store:
        assert callable(answer)
        assert await request_fixes(answer(), store, ANA) == []
        assert await store.all() == []


def recorded(mode: str) -> Diagnosis:
    """Of the first recording of this failure mode."""
    case = json.loads((CASES / f"{mode}.json").read_text())
    return diagnose([from_builtins(one) for one in case["recordings"][0]["facts"]])


async def test_what_must_be_seen_twice_lives_until_after_the_second_look(tmp_path: Path) -> None:
    now = NOW
    async with fix_cluster(tmp_path) as cluster, cluster.store(BOT, now=lambda: now) as store:
        (first,) = await requested(investigation(recorded("route_missing")), store, ANA)
        assert first.spec.kind == "replace_route"
        assert moment(first.spec.arguments["seen_at"]) == NOW
        between = timedelta(seconds=int(first.spec.arguments["again_after_s"]))
        assert between > timedelta(seconds=90)
        assert moment(first.spec.expires_at) == NOW + between + LIFETIME
        assert first.spec.digest == digest_of(first.spec)
        now = NOW + timedelta(minutes=1)
        (again,) = await requested(investigation(recorded("route_missing")), store, ANA)
        assert again.name == first.name, "asked again, the same route is the same request: it is seen since then"


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [(rule.name, {rule.fix, *rule.other_fixes}) for rule in load().rules if isinstance(rule, CauseRule) and rule.fix],
)
async def test_every_recorded_wound_that_can_be_mended_is_asked_for(
    tmp_path: Path, mode: str, wanted: set[str]
) -> None:
    diagnosis = recorded(mode)
    (cause,) = (one for one in (*diagnosis.causes, *diagnosis.warnings) if one.rule == mode)
    async with fix_cluster(tmp_path) as cluster, cluster.store(BOT, now=lambda: NOW) as store:
        made = [one for one in await requested(investigation(diagnosis), store, ANA) if one.spec.kind in wanted]
        assert made  # and so the API server takes it: its schema has limits
        for request in made:
            assert request.spec.node == cause.node
            spec = request.spec
            assert spec.title and spec.blast_radius and spec.undo
            words = fix_words(msgspec.to_builtins(spec))
            assert words == (spec.title, spec.blast_radius, spec.undo), "a card says what the request says"
            assert all(CHINESE.search(language("zh")(one)) for one in words)
            assert request.spec.kind in kinds()


async def test_a_person_may_ask_for_it_without_the_second_look_and_another_approves_that(tmp_path: Path) -> None:
    async with fix_cluster(tmp_path) as cluster, cluster.store(BOT, now=lambda: NOW) as store:
        (waiting,) = await requested(investigation(recorded("route_missing")), store, ANA)
        hurried = await at_once(waiting.name, store, BO)
        assert hurried.name != waiting.name and (await store.get(waiting.name)).status.phase is Phase.PENDING
        assert hurried.spec.arguments == {**waiting.spec.arguments, "now": "yes"}
        assert hurried.spec.requested_by == BO and hurried.spec.digest == digest_of(hurried.spec)
        assert moment(hurried.spec.expires_at) - moment(hurried.spec.requested_at) == LIFETIME
        (neighbor,) = await requested(wrong_mac(), store, ANA)
        with pytest.raises(UserError, match="waits for no second look"):
            await at_once(neighbor.name, store, BO)
        await store.transition(waiting.name, Phase.REJECTED, by=BO)
        with pytest.raises(UserError, match="is rejected; ask the question again"):
            await at_once(waiting.name, store, BO)


async def test_no_address_is_released_on_one_look_alone(tmp_path: Path) -> None:
    async with fix_cluster(tmp_path) as cluster, cluster.store(BOT, now=lambda: NOW) as store:
        waiting = await store.create(
            a_spec(NOW, kind="release_ip", node="", arguments={"address": "10.244.0.5", "again_after_s": "900"})
        )
        with pytest.raises(UserError, match="rests on two looks, and release_ip is never done on one alone"):
            await at_once(waiting.name, store, BO)
