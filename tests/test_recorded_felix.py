"""What Felix answered on its health port in good and bad times: the real collector reads it, a person is told right.

A Felix that has lost the API server for minutes calls itself ready all the same: then nothing can be told of it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from aiohttp import web

from engine.diagnosis import diagnose
from engine.plan import plan
from facts import FelixHealth, NodeAsk
from node_probe.collectors import felix
from node_probe.view import View
from tests.recorded_answers import alive, cluster_of, known
from tests.recorded_states import recorded
from tests.recordings import load

ANSWERS = {name: text for name, text in load("v3.32.1/loose").items() if name.startswith("felix-health/")}
NOBODY = "000"  # what curl prints where nobody answered


def answers(name: str) -> dict[str, tuple[str, str]]:
    """path -> (status, body)"""
    parts = re.split(r"^GET (/\w+) -> HTTP (\d+)\n?", ANSWERS[name], flags=re.MULTILINE)[1:]
    return {path: (status, body) for path, status, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)}


@asynccontextmanager
async def served(told: dict[str, tuple[str, str]]) -> AsyncIterator[int]:
    """A port that answers so."""

    async def answer(request: web.Request) -> web.Response:
        status, body = told[request.path]
        if status == NOBODY:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.Response(status=int(status), text=body)

    app = web.Application()
    app.router.add_get("/{path}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield cast(tuple[str, int], runner.addresses[0])[1]
    finally:
        await runner.cleanup()


async def health(name: str, monkeypatch: pytest.MonkeyPatch) -> FelixHealth:
    """As the probe sees it, which asks again where the first answer is bad."""
    monkeypatch.setattr(felix, "AGAIN_S", 0.0)
    async with served(answers(name)) as port:
        ask = NodeAsk(node=name.split("/")[2], felix_health_port=port, felix_again=True)
        (found,) = [one async for one in felix.collect(ask, cast(View, None))]
    assert isinstance(found, FelixHealth)
    return found


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_felix_that_is_not_ready_is_warned_of_and_no_other(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = await health(name, monkeypatch)
    source, target = {"node-a": ("a1", "b1"), "node-b": ("b1", "a1"), "node-c": ("c1", "a1")}[seen.node]
    recording = recorded("v3.32.1/healthy")
    async with cluster_of(recording, tmp_path) as cluster:
        facts = await known(cluster, f"default/pod-{source}", f"default/pod-{target}")
    for ask in plan(facts):
        told = seen if ask.node == seen.node else alive(ask.node)
        facts += recording.answer(ask, lambda ask, probe: "answered", told)
    diagnosis = diagnose(facts)
    ready = answers(name)["/readiness"][0] == "200"
    assert diagnosis.verdict == "healthy", diagnosis.summary
    assert [(one.rule, one.node) for one in diagnosis.warnings] == ([] if ready else [("felix_not_ready", seen.node)])


async def test_it_is_told_which_part_of_felix_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    starting = await health("felix-health/4-felix-start-while-api-down/node-a/health.txt", monkeypatch)
    assert starting.live and not starting.ready and starting.confirmed
    assert "FelixStartup" in starting.detail
