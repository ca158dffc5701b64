"""Tokens that were planted in whatever can fail around the real bot are in nothing it writes: standard output and
error, metrics, the files of its state. Each is met, lest the test look for what was never there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web

from lab.slack import LocalSlack
from lab.slack.config import load_config
from tests import deployed
from tests.fix_cluster import NAMESPACE, fix_cluster

ROOT = Path(__file__).parents[1]
ROOM = "incident"
BOT, APP, SIGNING = "xoxb-77-PLANTEDBOT", "xapp-1-PLANTEDAPP", "PLANTEDSIGNING0123456789"
INSIDE = "xoxp-88-PLANTEDINSIDE"  # what turns up in errors of our own
ANSWERED = "xoxs-99-PLANTEDANSWER"  # what Slack says in its answers
WAYS = ("thread", "task", "callback", "warning", "log", "finalizer", "engine", "exception", "user")


class Hostile:
    """The way to Slack: all is handed on, but what is named in `spoiled` is answered with something else."""

    def __init__(self, slack: LocalSlack) -> None:
        self._slack = slack
        self.spoiled: dict[str, tuple[int, str, str]] = {}  # method -> status, kind of content, body
        self.seen: list[str] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        method, body = request.match_info["method"], await request.read()
        self.seen.append(request.headers.get("Authorization", ""))
        if method in self.spoiled:
            status, kind, text = self.spoiled[method]
            return web.Response(status=status, content_type=kind, text=text)
        headers = {name: request.headers[name] for name in ("Authorization", "Content-Type") if name in request.headers}
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                request.method, self._slack.base_url + method, params=request.query, data=body, headers=headers
            ) as answer,
        ):
            kept = {"Content-Type": answer.headers["Content-Type"]}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncGenerator[Hostile]:
        app = web.Application()
        app.router.add_route("*", "/api/{method}", self.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/"
        try:
            yield self
        finally:
            await runner.cleanup()


class Bot:
    """A bot of its own process, all it wrote, and where it is looked at."""

    def __init__(self, state: Path, form: str) -> None:
        self.state = state
        self.form = form
        self.written = ""
        self.at = ""

    @contextlib.asynccontextmanager
    async def run(self, **environment: str) -> AsyncGenerator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.leaky_bot", "bot", "--log", self.form, "--observe", "127.0.0.1:0"),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={
                "PATH": os.environ["PATH"],
                "CALICO_WHY_STATE": str(self.state),
                "CALICO_WHY_NAMESPACE": NAMESPACE,
                "CALICO_WHY_DEVELOPMENT": "1",
                "PLANTED": INSIDE,
                **environment,
            },
        )
        reading = asyncio.ensure_future(self._read(process))
        try:
            yield process
            if process.returncode is None:
                process.terminate()
            await asyncio.wait_for(process.wait(), 30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await reading
            print(self.written)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.written += line.decode()

    async def until(self, text: str, times: int = 1) -> None:
        for _ in range(600):
            if self.written.count(text) >= times:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"it does not say {text!r}:\n{self.written}")

    async def metrics(self) -> str:
        await self.until("looked at on")
        found = re.search(r"looked at on (127\.0\.0\.1:\d+)", self.written)
        assert found is not None
        async with aiohttp.ClientSession() as session, session.get(f"http://{found[1]}/metrics") as answer:
            return await answer.text()

    def files(self) -> dict[str, str]:
        found = {path: path.read_text(errors="replace") for path in self.state.rglob("*") if path.is_file()}
        return {str(path.relative_to(self.state)): f"{path.name} {text}" for path, text in found.items()}


def clean(bot: Bot, metrics: str, *secrets: str) -> None:
    for secret in ("PLANTED", *secrets):
        assert secret not in bot.written
        assert secret not in metrics
        assert [name for name, text in bot.files().items() if secret in text] == []
    if bot.form == "json":
        assert all("message" in json.loads(line) for line in bot.written.splitlines())


def environment(slack: LocalSlack, url: str, kubeconfig: str, mode: str = "socket") -> dict[str, str]:
    return {
        "SLACK_BOT_TOKEN": slack.bot_token,
        "SLACK_APP_TOKEN": slack.app_token,
        "SLACK_SIGNING_SECRET": slack.signing_secret,
        "SLACK_API_URL": url,
        "CALICO_WHY_SLACK_MODE": mode,
        "KUBECONFIG": kubeconfig,
    }


@contextlib.asynccontextmanager
async def world(tmp_path: Path) -> AsyncGenerator[tuple[LocalSlack, Hostile, str]]:
    planted = msgspec.structs.replace(load_config(), bot_token=BOT, app_token=APP, signing_secret=SIGNING)
    async with LocalSlack(config=planted) as slack, Hostile(slack).open() as hostile, fix_cluster(tmp_path) as cluster:
        yield slack, hostile, cluster.kubeconfig(deployed.BOT)


def posted(slack: LocalSlack, text: str) -> bool:
    return any(text in json.dumps(one) for one in slack.messages(ROOM))


@pytest.mark.parametrize("form", ["text", "json"])
async def test_errors_of_our_own(tmp_path: Path, form: str) -> None:
    bot = Bot(tmp_path / "state", form)
    async with world(tmp_path) as (slack, hostile, kubeconfig), bot.run(**environment(slack, hostile.url, kubeconfig)):
        await slack.wait_for(lambda: slack.connections > 0, timeout=60)
        for way in WAYS:
            await slack.slash("ana", ROOM, f"/calico why shop/{way} shop/db")
        ends = [f"This way, {way}, is at its end." for way in WAYS if way != "exception"]
        await slack.wait_for(lambda: all(posted(slack, one) for one in ends), timeout=60)
        await slack.wait_for(lambda: posted(slack, "something in me broke"), timeout=60)
        metrics = await bot.metrics()
        assert 'outcome="broken"' in metrics
    # Each was met, and is told without its secret.
    for told in (
        "RuntimeError: Authorization: Bearer [secret]",
        "Task exception was never retrieved",
        "UserWarning: [secret]",
        "'token': '[secret]'",
        "cannot be written: TypeError",
        "an error that nobody could be told",
        "on stdout [secret]",
        "on stderr [secret]",
        "no diagnosis: RuntimeError: [secret]",
        "KeyError: 'by its cause'",
    ):
        assert told in bot.written, told
    clean(bot, metrics)


async def test_what_slack_answers(tmp_path: Path) -> None:
    bot = Bot(tmp_path / "state", "json")
    async with world(tmp_path) as (slack, hostile, kubeconfig), bot.run(**environment(slack, hostile.url, kubeconfig)):
        await slack.wait_for(lambda: slack.connections > 0, timeout=60)
        page = f"<html>upstream said Authorization: Bearer {ANSWERED}</html>"
        spoiled = (
            (200, "application/json", json.dumps({"ok": False, "error": f"no_such_{ANSWERED}"})),
            (200, "application/json", json.dumps({"ok": False, "error": ANSWERED})),
            (400, "application/json", page),
            (500, "text/html", page),
            (500, "text/plain", page),
        )
        for number, answer in enumerate(spoiled, 1):
            hostile.spoiled["chat.postMessage"] = answer
            await slack.slash("ana", ROOM, f"/calico get nodes -o yaml {number}")
            await slack.slash("ana", ROOM, f"/calico why shop/user shop/db{number}")
            await bot.until("Slack answered", number)
        metrics = await bot.metrics()
        assert 'method="chat.postMessage"' in metrics and 'error="other"' in metrics
    assert any(BOT in one for one in hostile.seen)
    assert "Slack answered" in bot.written
    clean(bot, metrics)


async def test_a_response_url_that_is_used_and_one_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bot = Bot(tmp_path / "state", "json")
    async with (
        world(tmp_path) as (slack, _, kubeconfig),
        bot.run(**environment(slack, slack.base_url, kubeconfig)),  # where all is of one origin, as Slack's own is
    ):
        await slack.wait_for(lambda: slack.connections > 0, timeout=60)
        await slack.slash("ana", ROOM, "/calico approve fx-aaaaaaaa")
        await slack.wait_for(lambda: any(call.method == "response_url" for call in slack.calls), timeout=60)
        monkeypatch.setattr("lab.slack.api.RESPONSE_URL_USES", 0)
        await slack.slash("ana", ROOM, "/calico reject fx-aaaaaaaa")
        await slack.wait_for(lambda: any(call.error == "used_url" for call in slack.calls), timeout=60)
        await slack.wait_for(lambda: any(call.method == "chat.postEphemeral" for call in slack.calls), timeout=60)
        await slack.slash("ana", ROOM, "/calico why shop/user shop/db")
        await slack.wait_for(lambda: posted(slack, "is at its end"), timeout=60)
        while any(name.startswith(("journal/jobs", "journal/clicks")) for name in bot.files()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        metrics = await bot.metrics()
    assert sum(name.startswith("journal/done") for name in bot.files()) == 3
    keys = list(slack.workspace.response_urls)
    assert len(keys) == 3
    clean(bot, metrics, *keys)


@pytest.mark.parametrize("wrong", ["SLACK_BOT_TOKEN", "SLACK_APP_TOKEN"])
async def test_a_wrong_token_ends_it_with_a_sentence(tmp_path: Path, wrong: str) -> None:
    bot = Bot(tmp_path / "state", "json")
    async with world(tmp_path) as (slack, hostile, kubeconfig):
        given = environment(slack, hostile.url, kubeconfig)
        given[wrong] = given[wrong].replace("PLANTED", "PLANTEDWRONG")
        async with bot.run(**given) as process:
            assert await asyncio.wait_for(process.wait(), 60) == 3
    assert "Slack does not accept the token" in json.loads(bot.written.splitlines()[-1])["message"]
    assert any("PLANTEDWRONG" in one for one in hostile.seen)
    clean(bot, "")


async def test_a_forged_delivery_is_not_repeated_into_the_log(tmp_path: Path) -> None:
    bot = Bot(tmp_path / "state", "json")
    async with world(tmp_path) as (slack, hostile, kubeconfig):
        given = environment(slack, hostile.url, kubeconfig, "http")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        async with bot.run(**given, CALICO_WHY_SLACK_LISTEN=f"127.0.0.1:{port}") as _:
            metrics = await bot.metrics()
            body = {
                "token": "PLANTEDVERIFICATION",
                "command": "/calico",
                "text": "help",
                "response_url": "https://hooks.slack.com/commands/T1/2/PLANTEDURL",
            }
            headers = {"X-Slack-Request-Timestamp": "1700000000", "X-Slack-Signature": f"v0={'a' * 64}"}
            for _ in range(200):
                with contextlib.suppress(aiohttp.ClientConnectorError):
                    async with (
                        aiohttp.ClientSession() as session,
                        session.post(f"http://127.0.0.1:{port}/slack/events", data=body, headers=headers) as answer,
                    ):
                        assert answer.status == 401
                        break
                await asyncio.sleep(0.05)
            metrics = await bot.metrics()
            assert 'delivery="command",status="401"' in metrics
    clean(bot, metrics)


async def test_a_crash_leaves_its_traceback_without_the_token(tmp_path: Path) -> None:
    bot = Bot(tmp_path / "state", "json")
    async with (
        world(tmp_path) as (slack, hostile, kubeconfig),
        bot.run(**environment(slack, hostile.url, kubeconfig), CRASH="yes") as process,
    ):
        assert await asyncio.wait_for(process.wait(), 60) == 3
    (file,) = bot.files().values()
    assert "RuntimeError: Authorization: Bearer [secret]" in file
    clean(bot, "")
