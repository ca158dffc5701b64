"""Traces of a question, as a receiver of OpenTelemetry's own protocol gets them; nothing of it where nobody asked."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bot import tracing
from bot.errors import UserError
from lab.client import Lab
from lab.slack import LocalSlack
from tests.test_bot_slack import ROOM, Room, room
from tests.test_metrics import samples

__all__ = ["room"]

ROOT = Path(__file__).parents[1]


class Span(NamedTuple):
    name: str
    parent: str  # its name, "" at the root
    trace: bytes
    attributes: dict[str, str]
    failed: str  # the message of its error


class Receiver:
    """Takes what is exported to it."""

    def __init__(self) -> None:
        self.url = ""
        self.resources: dict[str, str] = {}
        self._spans: dict[bytes, tuple[str, bytes, bytes, dict[str, str], str]] = {}
        self._news = asyncio.Event()

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources |= {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                for one in scope.spans:
                    said = {each.key: each.value.string_value for each in one.attributes}
                    assert not one.events, "an event of a span would carry an error's text"
                    self._spans[one.span_id] = one.name, one.parent_span_id, one.trace_id, said, one.status.message
        self._news.set()
        return web.Response(content_type="application/x-protobuf")

    def spans(self) -> list[Span]:
        return [
            Span(name, self._spans[parent][0] if parent in self._spans else "", trace, attributes, failed)
            for name, parent, trace, attributes, failed in self._spans.values()
        ]

    def named(self, name: str) -> list[Span]:
        return [one for one in self.spans() if one.name == name]

    async def until(self, name: str) -> Span:
        async with asyncio.timeout(30):
            while not self.named(name):
                await self._news.wait()
                self._news.clear()
        return self.named(name)[0]


@contextlib.asynccontextmanager
async def receiving() -> AsyncGenerator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/v1/traces", receiver.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@pytest.fixture
async def receiver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    """What this process traces goes there, and is complete once `traced` was stopped."""
    async with receiving() as one:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", one.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        stop = tracing.start()
        try:
            yield one
        finally:
            await asyncio.to_thread(stop)


async def test_a_question_its_look_and_all_that_is_said_are_one_trace(receiver: Receiver, room: Room) -> None:
    async with room.bot():
        await room.ask()
        await room.card()
    root = await receiver.until("question")
    assert root.parent == "" and root.attributes["calico_why.cluster"] == "test"
    look = await receiver.until("investigation")
    assert (look.parent, look.attributes["calico_why.verdict"]) == ("question", "cause")
    assert (await receiver.until("reply")).parent == "question"
    said = await receiver.until("slack chat.postMessage")
    assert said.parent in ("question", "reply")
    assert {one.trace for one in (look, said, *receiver.named("reply"))} == {root.trace}
    assert receiver.resources["service.name"] == "calico-why"


async def test_two_questions_are_two_traces(receiver: Receiver, room: Room) -> None:
    async with room.bot():
        await room.ask()
        await room.ask("/calico why shop/cart shop/queue")
        await room.slack.wait_for(lambda: room.answers.asked == ["shop/cart shop/db 5432/tcp", "shop/cart shop/queue"])
    async with asyncio.timeout(30):
        while len(receiver.named("question")) < 2:
            await receiver._news.wait()
            receiver._news.clear()
    assert len({one.trace for one in receiver.named("question")}) == 2


async def test_what_fails_is_told_by_its_kind_and_not_in_its_words(receiver: Receiver, room: Room) -> None:
    room.answers.answer = UserError("xoxb-1-planted")
    async with room.bot():
        await room.ask()
        await room.slack.wait_for(lambda: room.posted("planted"))
    assert (await receiver.until("investigation")).failed == "UserError"
    assert not [one for one in receiver.spans() if "planted" in repr(one)]


async def test_a_receiver_that_is_not_there_keeps_nobody_from_an_answer(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    stop = tracing.start()
    async with room.bot():
        await room.ask()
        await room.card()
    await asyncio.to_thread(stop)


CODE = """
import sys
class Away:
    def find_spec(self, name, path=None, target=None):
        if {away} and name.split(".")[0] == "opentelemetry":
            raise ImportError("no module named opentelemetry")
sys.meta_path.insert(0, Away())
from facts import logs
logs.start("text")
import bot.app
from bot import tracing
stop = tracing.start()
with tracing.span("question") as note:
    note("verdict", "cause")
stop()
print("loaded" if any(name.startswith("opentelemetry") for name in sys.modules) else "not loaded")
"""


@pytest.mark.parametrize(
    ("environment", "away", "told", "loaded"),
    [
        ({}, False, "", "not loaded"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}, False, "", "not loaded"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, True, "install calico-why[otel]", "not loaded"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            False,
            "http/protobuf only",
            "not loaded",
        ),
    ],
)
def test_nothing_is_loaded_that_nobody_asked_for(
    environment: dict[str, str], away: bool, told: str, loaded: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(away=away)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == loaded
    assert told in done.stderr and bool(told) == bool(done.stderr)


async def _page(url: str, path: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url + path) as answer:
        assert answer.status == 200
        return await answer.text()


# -- the real bot, on the lab ------------------------------------------------------------------------------------------


async def test_a_real_question_is_counted_and_traced_from_end_to_end(lab: Lab, tmp_path: Path) -> None:
    lab.inflict("neighbor_wrong_mac")
    async with receiving() as receiver, LocalSlack() as slack:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bot.cli", "bot", "--log", "json", "--observe", "127.0.0.1:0"),
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
            env={
                "PATH": os.environ["PATH"],
                **lab.environment(),
                "SLACK_BOT_TOKEN": slack.bot_token,
                "SLACK_APP_TOKEN": slack.app_token,
                "SLACK_API_URL": slack.base_url,
                "CALICO_WHY_DEVELOPMENT": "1",
                "CALICO_WHY_CLUSTER": "lab",
                "CALICO_WHY_STATE": str(tmp_path),
                "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
                "OTEL_BSP_SCHEDULE_DELAY": "100",
            },
        )
        assert process.stderr is not None
        written = ""
        try:
            while "looked at on" not in written:
                line = await asyncio.wait_for(process.stderr.readline(), 60)
                assert line, written
                written += line.decode()
            reading = asyncio.ensure_future(process.stderr.read())
            url = f"http://{written.rpartition('looked at on ')[2].partition(chr(34))[0]}"
            await slack.wait_for(lambda: slack.connections > 0, timeout=60)
            await slack.slash("ana", ROOM, "/calico why shop/cart shop/db 5432/tcp")
            reply = await receiver.until("reply")
            found = samples(await _page(url, "/metrics"))
            assert found['verdicts_total{cluster="lab",verdict="cause"}'] == 1
            assert found['causes_total{cluster="lab",rule="neighbor_wrong_mac"}'] == 1
            assert found['engine_duration_seconds_count{outcome="judged"}'] == 1
            assert found['probe_request_duration_seconds_count{cluster="lab",outcome="answered"}'] >= 2
            assert found['probe_request_duration_seconds_count{cluster="lab",outcome="silent"}'] == 0
            assert found['api_request_duration_seconds_count{cluster="lab",status="200"}'] > 5
            assert found['certificate_expiry_timestamp_seconds{cluster="lab"}'] > time.time()
            assert found["slack_connected"] == 1
            assert await _page(url, "/healthz") == await _page(url, "/readyz") == "ok\n"
            await receiver.until("question")
            asked = {one.attributes["calico_why.node"] for one in receiver.named("probe")}
            assert {"node-a", "node-b"} <= asked
            for name in ("cluster look-up", "engine", "packets followed"):
                assert (await receiver.until(name)).parent == "investigation"
            assert {one.trace for one in receiver.named("probe")} == {reply.trace}
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 40) == 0
            await reading
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
