"""A probe's door for captures, over TLS: what is refused in a sentence, what is told of each, and that whoever hangs up
ends it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from bot.settings import Settings
from bot.sources.probes import CannotCapture, Heard, Probes
from facts.capture import (
    CaptureAsk,
    CaptureBegan,
    CapturedPacket,
    CaptureEnd,
    CaptureItem,
    CaptureProgress,
    CaptureStage,
)
from node_probe import certs, command, door, server
from node_probe.answer import Prober
from tests.namespaces import in_namespaces
from tests.test_capture_probe import ask
from tests.two_nodes import TwoNodes

QUESTION = ask(seconds=30.0)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("certs")
    certs.make(found, ["node-a", "node-b"])
    return found


@contextlib.asynccontextmanager
async def served(directory: Path, application: web.Application, certified: str = "node-a") -> AsyncIterator[Probes]:
    """What reaches it. certified: the node in its certificate."""
    runner = web.AppRunner(application, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=door.tls(directory, certified))
    await site.start()
    try:
        async with Probes(Settings(certs=directory, probe_port=runner.addresses[0][1])) as probes:
            yield probes
    finally:
        await runner.cleanup()


async def heard(probes: Probes, question: CaptureAsk = QUESTION) -> list[Heard]:
    async with contextlib.aclosing(probes.capture(question, "127.0.0.1")) as lines:
        return [one async for one in lines]


async def refusal(probes: Probes, question: CaptureAsk = QUESTION) -> str:
    with pytest.raises(CannotCapture) as error:
        await heard(probes, question)
    return error.value.reason


@in_namespaces
async def test_the_clocks_of_asker_and_probe_bound_each_other(directory: Path) -> None:
    TwoNodes()
    async with served(directory, server.application(Prober("node-a", {}))) as probes:
        found = await heard(probes, ask(pods=(), seconds=0.1))
    began, end = found[0].line, found[-1].line
    assert isinstance(began, CaptureBegan) and isinstance(end, CaptureEnd) and end.why == "seconds"
    assert began.asked_ns >= found[0].sent_ns, "one clock: it cannot have been asked before somebody asked"
    assert all(one.line.at_ns <= one.came_ns for one in found if isinstance(one.line, CaptureProgress | CaptureEnd))


@in_namespaces
async def test_who_runs_a_probe_decides_what_it_captures(directory: Path) -> None:
    TwoNodes()
    async with served(directory, server.application(Prober("node-a", {}), capture="off")) as probes:
        assert "--capture off" in await refusal(probes)
    async with served(directory, server.application(Prober("node-a", {}), capture="headers")) as probes:
        assert "headers only" in await refusal(probes, ask(payload=True))
        assert await heard(probes, ask(pods=(), seconds=0.1))


@in_namespaces
async def test_two_at_once_and_the_next_one_is_told_to_wait(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    TwoNodes()
    caplog.set_level(logging.INFO)
    async with served(directory, server.application(Prober("node-a", {}))) as probes:
        async with contextlib.AsyncExitStack() as held:
            for _ in range(server.CAPTURES_AT_ONCE):
                lines = await held.enter_async_context(contextlib.aclosing(probes.capture(QUESTION, "127.0.0.1")))
                assert isinstance((await anext(lines)).line, CaptureBegan)
            assert "busy with 2 captures" in await refusal(probes)
        # They were hung up, in the middle of their thirty seconds: soon there is room again.
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(CannotCapture):
                    await heard(probes, ask(pods=(), seconds=0.1))
                    break
                await asyncio.sleep(0.05)
    told = [record.getMessage() for record in caplog.records if "audit" in record.getMessage()]
    assert "audit: captures everything between 10.244.1.2 and 10.244.2.2 (headers only)" in told
    assert any("then it was hung up" in one for one in told)


@in_namespaces
async def test_what_is_no_capture_is_refused_in_a_sentence(directory: Path) -> None:
    TwoNodes()
    async with served(directory, server.application(Prober("node-a", {}))) as probes:
        assert "does not name node-b" in await refusal(probes, ask(node="node-b"))
        assert "500 On node-a nothing can be captured" in await refusal(probes, ask(pairs=()))
        assert "400 This is no capture a probe understands" in await refusal(probes, ask(seconds="soon"))
    async with served(directory, server.application(Prober("node-a", {})), "node-b") as probes:
        assert "421 This is the probe of node-a" in await refusal(probes, ask(node="node-b"))


def test_a_setting_nobody_can_mean_keeps_a_probe_from_starting(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args(["--node", "node-a", "--certs", str(directory), "--capture", "some"])
    assert command.run(args) == 2
    assert "--capture some is none of all, headers, off" in capsys.readouterr().err


# -- probes that are not as they should be


def answering(lines: Iterable[CaptureItem | bytes], status: int = 200) -> web.Application:
    async def handler(_: web.Request) -> web.Response:
        body = b"".join(one if isinstance(one, bytes) else msgspec.json.encode(one) + b"\n" for one in lines)
        return web.Response(status=status, body=body)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    application = web.Application()
    application.router.add_post("/v1/capture", handler)
    application.router.add_get("/healthz", healthz)
    return application


BEGAN = CaptureBegan(asked_ns=1, at_ns=2)


async def test_an_answer_no_probe_would_give_is_not_believed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(directory, answering([BEGAN, b'{"is": "captureend"}\n'])) as probes:
        assert "no capture" in await refusal(probes)
    async with served(directory, answering([b"\xff\n"])) as probes:
        assert "no capture" in await refusal(probes)
    monkeypatch.setattr("bot.sources.probes.LARGEST_CAPTURE", 1000)
    stage = CaptureStage(number=0, device="eth0", kind="uplink")
    packet = CapturedPacket(stage=0, at_ns=3, length=60, out=True, data=bytes(60))
    async with served(directory, answering([BEGAN, stage, *[packet] * 20])) as probes:
        assert "more than" in await refusal(probes)


async def test_a_probe_of_an_older_version_is_told_as_such(directory: Path) -> None:
    async with served(directory, answering([b"404: Not Found"], status=404)) as probes:
        assert "bring it to this version" in await refusal(probes)


async def test_a_node_nobody_can_reach_is_told(directory: Path) -> None:
    async with Probes(Settings(certs=directory, probe_port=9)) as probes:
        assert "connection refused" in await refusal(probes)
        with pytest.raises(CannotCapture, match="InternalIP"):
            await anext(probes.capture(QUESTION, ""))
    async with Probes(Settings(certs=None)) as probes:
        assert "CALICO_WHY_CERTS" in await refusal(probes)
