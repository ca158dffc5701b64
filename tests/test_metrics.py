"""What the bot counts is what happened, with names of nobody in it; docs/metrics.md says all of it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import aiohttp
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bot import metrics as declared
from bot.errors import UserError
from bot.health import Health
from bot.journal import Click, Job, Journal
from bot.metrics import LOOKS, Bounded, Metrics, document
from bot.observe import address, observed
from bot.settings import Settings
from bot.sources.api import Api, Missing, Unreachable
from bot.sources.probes import Probes
from bot.told import Context
from engine.worker import Worker
from facts import Endpoint, NodeAsk
from fixes.request import FixRequest, Phase, Waits, stamp
from tests.answers import wrong_mac
from tests.deployed import BOT
from tests.fix_cluster import NAMESPACE, fix_cluster
from tests.fix_samples import a_spec
from tests.test_bot_slack import ROOM, Room, room

__all__ = ["room"]

ROOT = Path(__file__).parents[1]


def read(metrics: Metrics) -> dict[str, float]:
    return samples(metrics.text().decode())


def samples(text: str) -> dict[str, float]:
    """Every sample, by how a query would name it: name{label="value",...}, labels in order, calico_why_ left out."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            said = ",".join(f'{key}="{labels[key]}"' for key in sorted(labels))
            found[f"{name.removeprefix('calico_why_')}{{{said}}}" if said else name.removeprefix("calico_why_")] = value
    return found


async def until(metrics: Metrics, sample: str, value: float) -> None:
    for _ in range(200):
        if read(metrics).get(sample) == value:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{sample} is not {value}:\n{metrics.text().decode()}")


def test_the_page_says_what_there_is() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == document(), "python -m bot.metrics > docs/metrics.md"


def test_two_bots_in_one_process_count_each_their_own() -> None:
    one, other = Metrics(), Metrics()
    one.told_to_wait("chat.update")
    assert read(one)['slack_rate_limited_total{method="chat.update"}'] == 1
    assert read(other)['slack_rate_limited_total{method="chat.update"}'] == 0


async def test_questions_with_what_became_of_them(room: Room) -> None:
    async with room.bot() as app:
        await room.ask()
        await room.answered()
        room.answers.answer = UserError("There is no pod shop/nope.")
        await room.ask("/calico why shop/nope shop/db")
        await room.slack.wait_for(lambda: room.posted("There is no pod"))
        room.answers.answer = RuntimeError("deep inside")
        await room.ask("/calico why shop/cart shop/db")
        await room.slack.wait_for(lambda: room.posted("something in me broke"))
        found = read(app.metrics)
        for outcome in ("answered", "refused", "broken"):
            assert found[f'questions_total{{cluster="test",outcome="{outcome}",word="why"}}'] == 1
        assert found['questions_total{cluster="test",outcome="stopped",word="why"}'] == 0
        assert found['question_duration_seconds_count{cluster="test",word="why"}'] == 1
        assert found['verdicts_total{cluster="test",verdict="cause"}'] == 1
        assert found['verdicts_total{cluster="test",verdict="unknown"}'] == 0
        (cause,) = wrong_mac().diagnosis.causes
        assert found[f'causes_total{{cluster="test",rule="{cause.rule}"}}'] == 1
        assert found["slack_connected"] == 1
        assert found['acknowledgement_duration_seconds_count{delivery="command",status="200"}'] == 3
        assert found['slack_call_duration_seconds_count{method="chat.postMessage"}'] >= 3
        assert found['journal_entries{entry="decision"}'] == 0
        await until(app.metrics, 'journal_entries{entry="question"}', 0)
    assert read(app.metrics)["slack_connected"] == 0


async def test_other_words_are_questions_too(room: Room) -> None:
    nothing = cast(Any, None)  # so that it breaks
    room.context = lambda whoami, progress, written: Context(
        cluster=nothing,
        probes=nothing,
        store=room.store,
        settings=Settings(),
        whoami=whoami,
        investigate=room.answers,
        progress=progress,
        written=written,
    )
    async with room.bot() as app:
        await room.ask("/calico ipam plan --nodes 10 --pods-per-node 20")
        await until(app.metrics, 'questions_total{cluster="test",outcome="broken",word="ipam"}', 1)
        await room.ask("/calico policy shop/cart shop/db")
        await until(app.metrics, 'questions_total{cluster="test",outcome="refused",word="policy"}', 1)
        await room.ask("/calico why shop/cart shop/db watch 5")
        await until(app.metrics, 'questions_total{cluster="test",outcome="answered",word="watch"}', 1)
        assert read(app.metrics)['questions_total{cluster="test",outcome="answered",word="why"}'] == 0


async def test_a_question_in_progress_is_seen_and_one_that_is_broken_off_too(room: Room) -> None:
    room.answers.go.clear()
    async with room.bot() as app:
        await room.ask()
        await until(app.metrics, 'questions_in_progress{cluster="test",word="why"}', 1)
        assert read(app.metrics)['journal_entries{entry="question"}'] == 1
    found = read(app.metrics)
    assert found['questions_in_progress{cluster="test",word="why"}'] == 0
    assert found['questions_total{cluster="test",outcome="stopped",word="why"}'] == 1


async def test_a_fix_from_its_card_to_its_end(room: Room) -> None:
    async with room.bot() as app:
        await room.ask()
        request, thread, ts = await room.card()
        kind = request.spec.kind
        await until(app.metrics, f'fixes_open{{cluster="test",kind="{kind}",phase="Pending"}}', 1)
        await room.slack.click("bo", ROOM, ts, "fix_approve")
        await room.slack.wait_for(lambda: room.posted("approved, about to be done", thread))
        await until(app.metrics, f'fixes_open{{cluster="test",kind="{kind}",phase="Approved"}}', 1)
        found = read(app.metrics)
        assert found[f'fixes_open{{cluster="test",kind="{kind}",phase="Pending"}}'] == 0
        assert found['fixes_oldest_seconds{cluster="test",phase="Approved"}'] > 0
        assert found['acknowledgement_duration_seconds_count{delivery="action",status="200"}'] == 1
        await room.store.transition(request.name, Phase.RUNNING)
        await room.store.transition(request.name, Phase.VERIFIED, message="It is so now.")
        await until(app.metrics, f'fixes_ended_total{{cluster="test",kind="{kind}",phase="Verified"}}', 1)
        found = read(app.metrics)
        assert found[f'fix_duration_seconds_count{{cluster="test",kind="{kind}"}}'] == 1
        assert found[f'fixes_open{{cluster="test",kind="{kind}",phase="Running"}}'] == 0
        assert found['fixes_oldest_seconds{cluster="test",phase="Approved"}'] == 0


async def test_what_ended_before_the_bot_came_is_not_counted_and_what_waits_on_purpose_is_not_late(
    tmp_path: Path,
) -> None:
    now = datetime.now(UTC)
    metrics = Metrics()
    oldest = 'fixes_oldest_seconds{cluster="test",phase="Approved"}'

    def later(request: FixRequest, **changes: Any) -> FixRequest:
        return msgspec.structs.replace(request, status=msgspec.structs.replace(request.status, **changes))

    async with fix_cluster(tmp_path) as cluster, cluster.store(BOT, now=lambda: now) as store:
        saw = metrics.fixes("test", store)
        request = await store.create(a_spec(now))
        saw("listed", later(request, phase=Phase.REJECTED))
        assert not any(name.startswith("fixes_ended_total") for name in read(metrics))
        approved = later(request, phase=Phase.APPROVED, approved_at=stamp(now - timedelta(seconds=90)))
        saw("changed", approved)
        assert read(metrics)[oldest] == pytest.approx(90, abs=1)
        saw("changed", later(approved, waits=Waits(text="Fixes are switched off.")))
        assert read(metrics)[oldest] == 0
        saw("changed", approved)
        saw("deleted", approved)
        assert read(metrics)[oldest] == 0
        assert read(metrics)['fixes_open{cluster="test",kind="replace_neighbor",phase="Approved"}'] == 0


@pytest.mark.parametrize(
    ("failure", "error"), [("500", "internal_error"), ("429", "ratelimited"), ("reset", "unreachable")]
)
async def test_what_slack_refuses(room: Room, failure: str, error: str) -> None:
    async with room.bot() as app:
        room.slack.faults.fail("files.getUploadURLExternal", failure, times=9, retry_after=0)
        await room.ask()
        await until(app.metrics, f'slack_errors_total{{error="{error}",method="files.getUploadURLExternal"}}', 1)
        limited = read(app.metrics).get('slack_rate_limited_total{method="files.getUploadURLExternal"}', 0)
        assert limited == (3 if failure == "429" else 0)


async def test_no_name_of_a_pod_a_node_a_person_or_a_channel_is_in_it(room: Room) -> None:
    async with room.bot() as app:
        await room.ask()
        request, _, ts = await room.card()
        await room.slack.click("bo", ROOM, ts, "fix_approve")
        text = app.metrics.text().decode()
    names = ("shop", "cart", "node-a", "node-b", "incident", "ana", request.name)
    ids = (room.slack.user_id("ana"), room.slack.user_id("bo"), room.slack.channel_id(ROOM))
    assert [one for one in (*names, *ids) if re.search(rf"\b{one}\b", text)] == []


async def test_reads_of_the_cluster_by_status(tmp_path: Path) -> None:
    metrics = Metrics()
    async with fix_cluster(tmp_path) as cluster:
        api = await Api.connect(cluster.kubeconfig(BOT), timeout_s=5)
        api.asked = metrics.api("test")
        try:
            await api.get(f"/api/v1/namespaces/{NAMESPACE}")
            with pytest.raises(Missing):
                await api.get("/api/v1/namespaces/nope")
            await cluster.server.stop()
            with pytest.raises(Unreachable):
                await api.get("/api/v1/namespaces/nope")
        finally:
            await api.close()
        await cluster.server.start()
    found = read(metrics)
    for status in ("200", "404", "none"):
        assert found[f'api_request_duration_seconds_count{{cluster="test",status="{status}"}}'] == 1


async def test_a_silent_probe_is_told_from_one_that_answers() -> None:
    metrics = Metrics()
    metrics.serves("test")
    async with Probes(Settings()) as probes:
        probes.asked = metrics.probe("test")
        await probes.ask([NodeAsk(node="node-a")], {"node-a": "127.0.0.1"})
    found = read(metrics)
    assert found['probe_request_duration_seconds_count{cluster="test",outcome="silent"}'] == 1
    assert found['probe_request_duration_seconds_count{cluster="test",outcome="answered"}'] == 0


def test_an_engine_that_dies_is_counted_and_started_anew() -> None:
    metrics = Metrics()
    with Worker(function="tests.worker_functions:obeys") as worker:
        worker.judged, worker.restarted = metrics.judged, metrics.engine_restarted
        assert worker.diagnose([Endpoint(name="crash", kind="pod")]).verdict == "unknown"
        assert worker.diagnose([Endpoint(name="answer", kind="pod")]).verdict == "healthy"
    found = read(metrics)
    assert found['engine_duration_seconds_count{outcome="failed"}'] == 1
    assert found['engine_duration_seconds_count{outcome="judged"}'] == 1
    assert found["engine_restarts_total"] == 1


def test_what_others_put_into_labels_is_bounded_and_no_secret() -> None:
    bounded = Bounded(3)
    assert [bounded(one) for one in ("probe", "firewall trace", "xoxb-12-ab", "a\nb", "x" * 99, "tap")] == [
        "probe",
        "firewall trace",
        "other",
        "other",
        "other",
        "tap",
    ]
    assert [bounded(one) for one in ("new", "probe")] == ["other", "probe"]
    assert len(list((ROOT / "engine" / "rules").glob("*.py"))) + 40 < LOOKS, "each rule may be a look"


# -- the three pages ---------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def pages(metrics: Metrics, health: Health) -> AsyncGenerator[aiohttp.ClientSession]:
    async with (
        observed(("127.0.0.1", 0), metrics, health) as (host, port),
        aiohttp.ClientSession(f"http://{host}:{port}") as session,
    ):
        yield session


async def test_three_pages_and_nothing_else(tmp_path: Path) -> None:
    metrics, health = Metrics(), Health(Journal(tmp_path), dead_after_s=60)
    async with pages(metrics, health) as session:
        async with session.get("/metrics") as answer:
            assert answer.status == 200 and answer.headers["Content-Type"] == declared.CONTENT_TYPE
            assert list(text_string_to_metric_families(await answer.text()))
        for path in ("/", "/metrics/", "/slack/events", "/debug"):
            async with session.get(path) as answer:
                assert answer.status == 404
        for path in ("/metrics", "/healthz", "/readyz"):
            for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
                async with session.request(method, path) as answer:
                    assert answer.status == 405, (method, path)


async def said(session: aiohttp.ClientSession, path: str) -> tuple[int, str]:
    async with session.get(path) as answer:
        return answer.status, await answer.text()


async def test_ready_is_who_would_answer_a_question_now(tmp_path: Path) -> None:
    health = Health(Journal(tmp_path), dead_after_s=60)
    async with pages(Metrics(), health) as session:
        assert await said(session, "/readyz") == (503, "Slack does not reach this bot\n")
        assert await said(session, "/healthz") == (200, "ok\n")
        health.reached()
        assert await said(session, "/readyz") == (200, "ok\n")
        jobs = tmp_path / "journal" / "jobs"
        jobs.rmdir()
        status, why = await said(session, "/readyz")
        assert status == 503 and "the journal of questions cannot be written" in why
        jobs.mkdir()
        assert not list(jobs.iterdir())
        assert await said(session, "/readyz") == (200, "ok\n")


async def test_a_bot_whose_socket_is_gone_says_so(tmp_path: Path) -> None:
    health = Health(Journal(tmp_path), dead_after_s=0)
    async with pages(Metrics(), health) as session:
        health.reached()
        assert await said(session, "/healthz") == (200, "ok\n")
        health.lost()
        status, why = await said(session, "/healthz")
        assert status == 503 and why.startswith("Slack's socket has been gone for")


@pytest.mark.parametrize("room", ["socket"], indirect=True)
async def test_a_socket_that_is_lost_and_found_again(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.delivery.CONNECTED_EVERY_S", 0.05)
    async with room.bot() as app, pages(app.metrics, app.health) as session:
        assert await said(session, "/readyz") == (200, "ok\n")
        room.slack.faults.fail("apps.connections.open", "500", times=1000)
        await room.slack.disconnect()
        await until(app.metrics, "slack_connected", 0)
        assert await said(session, "/readyz") == (503, "Slack does not reach this bot\n")
        assert await said(session, "/healthz") == (200, "ok\n"), "it may come back by itself"
        room.slack.faults.clear()
        await until(app.metrics, "slack_connected", 1)
        assert await said(session, "/readyz") == (200, "ok\n")
        await room.ask()
        await room.answered()
        assert read(app.metrics)["slack_heard_seconds"] < 60


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", None),
        ("127.0.0.1:9798", ("127.0.0.1", 9798)),
        ("[fd00::1]:9798", ("fd00::1", 9798)),
        ("fd00::1:9798", ("fd00::1", 9798)),  # as Kubernetes puts an address before a port
    ],
)
def test_where_it_is_looked_at(text: str, meant: tuple[str, int] | None) -> None:
    assert address(text) == meant


@pytest.mark.parametrize("text", ["9798", ":9798", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:70000"])
def test_where_it_cannot_be_looked_at(text: str) -> None:
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9798"):
        address(text)


async def test_a_place_that_is_taken_is_said(tmp_path: Path) -> None:
    health = Health(Journal(tmp_path), dead_after_s=60)
    async with observed(("127.0.0.1", 0), Metrics(), health) as taken:
        with pytest.raises(UserError, match="CALICO_WHY_OBSERVE"):
            async with observed(taken, Metrics(), health):
                pass


def test_questions_and_decisions_that_wait_are_told_apart(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.accept(Job(id="1", words="a b", user="U", channel="C"))
    journal.accept(Job(id="2", words="a b", user="U", channel="C"))
    journal.accept(Click(id="3", request="fx-aaaaaaaa", to="Approved", user="U", team="T", channel="C"))
    assert (journal.depth(Job), journal.depth(Click)) == (2, 1)
