"""Secrets planted in everything around a real bot on the lab are in nothing that a whole run of it writes: logs, state,
metrics, traces, messages and files in Slack, what terminals print, bundles. Each is met, lest the test look for what
was never there."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import os
import re
import signal
import tarfile
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import yaml
from aiohttp import web

from fixes.calico import Calico
from fixes.store import connect
from lab.client import Lab
from lab.slack import LocalSlack
from lab.slack.config import load_config
from tests.fix_cluster import NAMESPACE
from tests.own_faults import Wire, until
from tests.programs import Programs
from tests.test_bot_slack import ROOM, _all_text
from tests.test_several_clusters_on_lab import port_of

PLANTED = "PLANTED"  # part of each that is made here
ENCODED = base64.b64encode(b"PLANTED" * 3).decode()  # as a Secret has it
LOOKED_S = 60.0
ASKED = (
    "why shop/cart shop/db 5432/tcp",
    "capture shop/cart shop/db --seconds 0.2",
    "keep shop/cart shop/db",
    "node diags node-a",
    "node status -o json",
    "ipam check -o json",
    "get nodes -o json",
    "get workloadendpoints -A -o json",
    "policy shop/cart shop/db",
    "preflight",
    "fixes",
    "audit export",
    "why shop/nobody shop/db",
)


TYPED = (
    ("why", "shop/cart", "shop/db", "-o", "json", "--picture", "HERE/path.svg"),
    ("keep", "shop/cart", "shop/db", "--to", "HERE/kept.tar.gz"),
    ("preflight", "-o", "json"),
    ("node", "status", "-o", "json"),
    ("get", "workloadendpoints", "-A", "-o", "yaml"),
    ("config",),
    ("audit", "export"),
    ("--debug", "why", "shop/cart", "shop/db", "--kubeconfig", "/does/not/exist"),
)


@pytest.fixture
def own_lab() -> Iterator[Lab]:
    with Lab.up(2, environment={"CALICO_WHY_APPROVERS": "U0BO"}) as lab:
        yield lab


async def plant(lab: Lab) -> None:
    """In objects of the cluster that are read, beside what is needed of them, and in some that nobody may read."""
    async with connect(lab.administrator()["KUBECONFIG"], NAMESPACE) as store:
        calico = Calico(store.api, environment={})

        notes = {"kubectl.kubernetes.io/last-applied-configuration": "PLANTEDAPPLIED", "vault/token": "PLANTEDNOTE"}
        for path in ("nodes/node-a", "namespaces/shop/pods/cart", "namespaces/shop/pods/db"):
            _, found = await calico._send("GET", f"/api/v1/{path}")
            found["metadata"].setdefault("annotations", {}).update(notes)
            status, answer = await calico._send("PUT", f"/api/v1/{path}", body=found)
            assert status == 200, answer
        container = {
            "name": "app",
            "image": "app",
            "args": ["--password=PLANTEDARGUMENT"],
            "env": [{"name": "PASSWORD", "value": "PLANTEDENV"}],
        }
        spec = {"nodeName": "node-a", "hostNetwork": True, "containers": [container]}
        for kind, plural, rest in (
            ("Secret", "secrets", {"data": {"password": ENCODED}}),
            ("ConfigMap", "configmaps", {"data": {"password": "PLANTEDCONFIGMAP"}}),
            ("Pod", "pods", {"spec": spec}),
        ):
            body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "vault", "annotations": notes}, **rest}
            status, answer = await calico._send("POST", f"/api/v1/namespaces/shop/{plural}", body=body)
            assert status == 201, answer
    lab.exec("shop/cart", "sh", "-c", "SECRET=PLANTEDENVIRON sh -c 'sleep 300; : PLANTEDCMDLINE' >&- 2>&- &")


class Collector:
    """Takes traces, until it is told to refuse them."""

    def __init__(self) -> None:
        self.url = ""
        self.bodies: list[bytes] = []
        self.headers: list[str] = []
        self.refuses = False

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bodies.append(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
        self.headers.append(request.headers.get("Authorization", ""))
        return web.Response(status=400 if self.refuses else 200, content_type="application/x-protobuf")

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncGenerator[Collector]:
        app = web.Application()
        app.router.add_post("/v1/traces", self.take)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


def unpacked(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """A file, and all that is in it."""
    yield name, content
    if content[:2] == b"\x1f\x8b":
        with tarfile.open(fileobj=io.BytesIO(content)) as opened:
            for one in opened:
                if file := opened.extractfile(one):
                    yield f"{name}/{one.name}", file.read()


def below(directory: Path) -> Iterator[tuple[str, bytes]]:
    for path in directory.rglob("*"):
        if path.is_file():
            yield str(path), path.name.encode()
            yield from unpacked(str(path), path.read_bytes())


def secrets_of(lab: Lab) -> dict[str, bytes]:
    """What the bot itself is let in by."""
    told = lab.environment()
    kubeconfig = yaml.safe_load(Path(told["KUBECONFIG"]).read_text())
    key = (Path(told["CALICO_WHY_CERTS"]) / "bot.key").read_text().splitlines()
    return {
        "the token of the kubeconfig": kubeconfig["users"][0]["user"]["token"].encode(),
        "the key of the certificate": key[1].encode(),
    }


def through(lab: Lab, wire: Wire) -> str:
    """The bot's kubeconfig, by a wire that can be cut."""
    told = Path(lab.environment()["KUBECONFIG"])
    cut = told.with_name("wired")
    cut.write_text(told.read_text().replace(f"127.0.0.1:{port_of(lab)}", f"127.0.0.1:{wire.port}"))
    return str(cut)


def texts(slack: LocalSlack) -> list[str]:
    return [_all_text(one) for one in slack.messages(ROOM, viewer="ana") if not one["text"].startswith("Looking")]


def in_thread(slack: LocalSlack, text: str) -> dict[str, Any] | None:
    threads = [one["ts"] for one in slack.messages(ROOM)]
    found = (one for thread in threads for one in slack.messages(ROOM, thread) if text in _all_text(one))
    return next(found, None)


async def test_a_whole_run_writes_no_secret(own_lab: Lab, tmp_path: Path) -> None:
    await plant(own_lab)
    own_lab.inflict("neighbor_wrong_mac")
    tokens = {"bot_token": "xoxb-77-PLANTEDBOT", "app_token": "xapp-1-PLANTEDAPP", "signing_secret": "PLANTEDSIGNING01"}
    collector, programs, wire = Collector(), Programs(), Wire(port_of(own_lab))
    await wire.start()
    async with collector.open(), LocalSlack(config=msgspec.structs.replace(load_config(), **tokens)) as slack:
        environment = {
            "PATH": os.environ["PATH"],
            **own_lab.environment(),
            "KUBECONFIG": through(own_lab, wire),
            "SLACK_BOT_TOKEN": slack.bot_token,
            "SLACK_APP_TOKEN": slack.app_token,
            "SLACK_SIGNING_SECRET": slack.signing_secret,
            "SLACK_API_URL": slack.base_url,
            "CALICO_WHY_DEVELOPMENT": "1",
            "CALICO_WHY_APPROVERS": "U0BO",
            "CALICO_WHY_STATE": str(tmp_path / "state"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20PLANTEDOTEL",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        known = secrets_of(own_lab)
        bot = programs.start(["bot", "--observe", "127.0.0.1:0"], environment, tmp_path / "bot.log")
        try:
            await slack.wait_for(lambda: slack.connections > 0, timeout=LOOKED_S)
            for said in ASKED:
                before = len(texts(slack))
                assert (await slack.slash("ana", ROOM, f"/calico {said}")).result == "ok"
                await slack.wait_for(lambda before=before: len(texts(slack)) > before, timeout=LOOKED_S)
            card = await slack.wait_for(lambda: in_thread(slack, "waits for approval"), timeout=LOOKED_S)
            assert card is not None
            await slack.click("ana", ROOM, card["ts"], "fix_approve")
            await slack.click("bo", ROOM, card["ts"], "fix_approve")
            await slack.wait_for(lambda: in_thread(slack, "verified"), timeout=LOOKED_S)
            for number, words in enumerate(TYPED):
                typed = [word.replace("HERE", str(tmp_path)) for word in words]
                await programs.start(typed, environment, tmp_path / f"terminal-{number}.log").ended()
            # Things that fail with what they were doing in their hands.
            collector.refuses = True
            slack.faults.fail("chat.postMessage", "500", times=2)
            await slack.slash("ana", ROOM, "/calico why shop/cart shop/db")
            await slack.disconnect()
            await slack.wait_for(lambda: slack.connections > 0, timeout=LOOKED_S)
            await wire.refuse()
            await slack.slash("ana", ROOM, "/calico why shop/cart shop/db")
            await slack.wait_for(lambda: any("cannot be reached" in one for one in texts(slack)), timeout=LOOKED_S)
            (at,) = await until(lambda: re.findall(r"looked at on (127\.0\.0\.1:\d+)", bot.text))
            async with aiohttp.ClientSession() as session, session.get(f"http://{at}/metrics") as answer:
                metrics = await answer.read()
        finally:
            bot.signal(signal.SIGTERM)
            await bot.ended()
            await wire.close()
        space = slack.workspace
        written = [
            *below(tmp_path),
            ("metrics", metrics),
            *(("a trace", body) for body in collector.bodies),
            *(("a message", repr(one).encode()) for one in space.messages.values()),
            *(each for one in space.uploads.values() for each in unpacked(one.name, one.data or b"")),
        ]
        known |= {f"a response_url {number}": key.encode() for number, key in enumerate(space.response_urls)}
    assert set(collector.headers) == {"Bearer PLANTEDOTEL"}
    names = {re.sub(r".*/", "", name) for name, _ in written}
    assert {
        "bot.log",
        "metrics",
        "a trace",
        "a message",
        "answer.json",
        "audit.jsonl",
        "pods.json",
        "nodes.json",
    } <= names, names
    known |= {"what was planted": PLANTED.encode(), "what was planted in a Secret": ENCODED.encode()}
    found = {(what, name) for what, secret in known.items() for name, content in written if secret in content}
    assert not found, found
