"""Who the probe's door opens for, what it refuses in a sentence, and that it starts and ends as a service must."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat

from certificates import making
from facts import Blind, Fact, NodeAsk, RouteLookup, Sysctl, Trace, Watch, decode
from facts.capture import CaptureAsk
from node_probe import certs, door, server
from node_probe.answer import Prober
from node_probe.collectors import Collector
from node_probe.view import View
from tests.namespaces import in_namespaces
from tests.two_nodes import CART, DB, NODE, TwoNodes, ask

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("certs")
    certs.make(found, ["node-a"])
    return found


def client(directory: Path, name: str = "bot", authority: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str((authority or directory) / "ca.crt"))
    if name:
        context.load_cert_chain(directory / f"{name}.crt", directory / f"{name}.key")
    return context


@contextlib.asynccontextmanager
async def probe(directory: Path, collectors: dict[str, Collector]) -> AsyncIterator[str]:
    """Its address."""
    runner = web.AppRunner(server.application(Prober("node-a", collectors)), shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=door.tls(directory, "node-a"))
    await site.start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def call(
    url: str, context: ssl.SSLContext, body: bytes | None = None, name: str = "node-a.probe.calico-why"
) -> tuple[int, bytes]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        method = "GET" if body is None else "POST"
        async with session.request(method, url, data=body, server_hostname=name) as answer:
            return answer.status, await answer.read()


def switch(ask: NodeAsk, view: View) -> Iterator[Fact]:
    yield Sysctl(node=ask.node, name="seen", found=True, value=ask.tunnel_device)


SEEN = {"switch": switch}
QUESTION = msgspec.json.encode(NodeAsk(node="node-a"))


async def test_the_bot_is_answered_with_facts(directory: Path) -> None:
    async with probe(directory, SEEN) as url:
        status, body = await call(f"{url}/v1/facts", client(directory), QUESTION)
        assert (status, decode(body)) == (200, [Sysctl(node="node-a", name="seen", found=True, value="vxlan.calico")])
        assert await call(f"{url}/healthz", client(directory)) == (200, b"ok\n")


async def test_strangers_are_refused(directory: Path, tmp_path: Path) -> None:
    certs.make(tmp_path / "other", ["node-a"])
    (tmp_path / "named").mkdir()
    _signed(directory, tmp_path / "named", "mallory")
    async with probe(directory, SEEN) as url:
        for path, body in (("/v1/facts", QUESTION), ("/healthz", None)):
            status, said = await call(url + path, client(tmp_path / "named", authority=directory), body)
            assert status == 403 and b"mallory" in said
        refused = (
            client(directory, name=""),  # none at all
            client(tmp_path / "other", authority=directory),  # of another authority, named bot
            client(directory, name="node-a/probe"),  # of this authority, but for servers
        )
        for context in refused:
            with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
                await call(f"{url}/healthz", context)
        with pytest.raises(aiohttp.ClientError):  # without TLS
            await call(url.replace("https", "http") + "/healthz", client(directory))
        for other in ("node-a", "node-b.probe.calico-why", "probe.calico-why"):
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await call(f"{url}/healthz", client(directory), name=other)
        assert (await call(f"{url}/healthz", client(directory)))[0] == 200, "and the door still works"


def _signed(directory: Path, target: Path, name: str) -> None:
    """A client certificate of the same authority with another name."""
    authority = making.Pair((directory / "ca.crt").read_bytes(), (directory / "ca.key").read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    day = datetime.timedelta(days=1)
    (target / "bot.crt").write_bytes(making.signed(authority, key.public_key(), name, making.CLIENT, (), day))
    (target / "bot.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, serialization.NoEncryption()))


async def test_what_is_no_question_is_refused_in_a_sentence(directory: Path) -> None:
    async with probe(directory, SEEN) as url:
        for body, status, words in (
            (msgspec.json.encode(NodeAsk(node="node-b")), 421, b"probe of node-a"),
            (b"nonsense", 400, b"no question"),
            (b"[]", 400, b"no question"),
            (b'{"node": "node-a", "deadline_ms": "soon"}', 400, b"deadline_ms"),
            (b"{}", 400, b"node"),
            (b" " * (server.LARGEST_ASK + 1), 413, b"size"),
        ):
            answered, said = await call(f"{url}/v1/facts", client(directory), body)
            assert (answered, words in said) == (status, True), (body[:40], said)
            assert b"Traceback" not in said
        assert (await call(f"{url}/v1/facts", client(directory)))[0] == 405
        assert (await call(f"{url}/v1/other", client(directory)))[0] == 404


async def test_late_is_blind_within_the_deadline(directory: Path) -> None:
    async def slow(ask: NodeAsk, view: View) -> AsyncIterator[Fact]:
        yield Sysctl(node=ask.node, name="first", found=True)
        await release.wait()

    release = asyncio.Event()
    async with probe(directory, SEEN | {"slow": slow}) as url:
        began = time.monotonic()
        body = msgspec.json.encode(NodeAsk(node="node-a", deadline_ms=300))
        status, said = await call(f"{url}/v1/facts", client(directory), body)
        assert time.monotonic() - began < 2
        found = decode(said)
        assert status == 200
        assert {type(fact) for fact in found} == {Sysctl, Blind} and len(found) == 3
        assert Blind(node="node-a", look="slow", reason="not done after 300 ms", late=True) in found
        release.set()


async def test_too_many_at_once_are_told_so_and_served_later(directory: Path) -> None:
    running = most = 0
    full, release = asyncio.Event(), asyncio.Event()

    async def slow(ask: NodeAsk, view: View) -> AsyncIterator[Fact]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == server.AT_ONCE:
            full.set()
        await release.wait()
        running -= 1
        yield Sysctl(node=ask.node, name="done", found=True)

    async with probe(directory, {"slow": slow}) as url:
        context = client(directory)
        patient = msgspec.json.encode(NodeAsk(node="node-a", deadline_ms=20_000))
        hurried = msgspec.json.encode(NodeAsk(node="node-a", deadline_ms=200))
        asked = [asyncio.create_task(call(f"{url}/v1/facts", context, patient)) for _ in range(server.AT_ONCE + 3)]
        await full.wait()
        status, said = await call(f"{url}/v1/facts", context, hurried)
        assert status == 503 and b"busy" in said
        release.set()
        assert [status for status, _ in await asyncio.gather(*asked)] == [200] * len(asked)
        assert most == server.AT_ONCE


@in_namespaces
async def test_the_whole_way_in_a_real_node(tmp_path: Path) -> None:
    from node_probe.collectors import discover

    TwoNodes()
    certs.make(tmp_path, ["node-a"])
    async with probe(tmp_path, discover()) as url:
        status, body = await call(f"{url}/v1/facts", client(tmp_path), msgspec.json.encode(ask()))
        assert status == 200
        ways = [fact for fact in decode(body) if isinstance(fact, RouteLookup) and fact.destination == DB]
        assert [way.prefix for way in ways] == ["10.244.2.0/26"] * 2
        assert all(one["node"] == "node-a" for one in json.loads(body))


# -- the program ----------------------------------------------------------------------------------------------------


def program(*words: str, **environment: str) -> subprocess.Popen[str]:
    code = (
        "import argparse, sys; from node_probe import command; parser = argparse.ArgumentParser(); "
        "command.add_arguments(parser); sys.exit(command.run(parser.parse_args()))"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALICO_WHY_")}
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=ROOT, env=kept | environment, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_stop(directory: Path, end: signal.Signals) -> None:
    process = program("--node", "node-a", "--listen", "127.0.0.1:0", CALICO_WHY_CERTS=str(directory))
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        assert "probe of node-a listens on 127.0.0.1:" in said
        port = int(said.rsplit(":", 1)[1])
        assert asyncio.run(call(f"https://127.0.0.1:{port}/healthz", client(directory))) == (200, b"ok\n")
        with socket.create_connection(("127.0.0.1", port)):  # one who says nothing does not keep it from ending
            process.send_signal(end)
            assert process.wait(10) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


ASKS = """
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile=sys.argv[1] + "/ca.crt")
context.check_hostname = False
context.load_cert_chain(sys.argv[1] + "/bot.crt", sys.argv[1] + "/bot.key")
urllib.request.urlopen(urllib.request.Request(sys.argv[2], data=sys.stdin.buffer.read()), context=context)
"""


@pytest.mark.parametrize("way", ["facts", "capture"])
@in_namespaces
def test_when_the_bot_is_killed_nothing_stays_open_for_its_question(tmp_path: Path, way: str) -> None:
    """Long before the question's own deadline: nobody waits for the answer any more."""
    TwoNodes()
    certs.make(tmp_path, ["node-a"])
    trace = Trace(source=CART, target=DB, protocol="icmp")
    watch = Watch(way="in", encapsulation="direct", source=CART, target=DB, peer=NODE["b"])
    question: Any = ask(read=False, felix=False, trace=(trace,), watch=(watch,), patience_ms=20_000, deadline_ms=30_000)
    if way == "capture":
        question = CaptureAsk(node="node-a", pairs=((CART, DB),), seconds=30)
    process = program("--node", "node-a", "--listen", "127.0.0.1:0", CALICO_WHY_CERTS=str(tmp_path))
    assert process.stderr is not None
    bot = None
    try:
        port = int(process.stderr.readline().rsplit(":", 1)[1])
        argv = [sys.executable, "-c", ASKS, str(tmp_path), f"https://127.0.0.1:{port}/v1/{way}"]
        bot = subprocess.Popen(argv, stdin=subprocess.PIPE)
        assert bot.stdin is not None
        bot.stdin.write(msgspec.json.encode(question))
        bot.stdin.close()
        until_sockets(lambda count: count > 0, process)
        bot.kill()
        bot.wait()
        until_sockets(lambda count: count == 0, process)
    finally:
        for one in (process, *filter(None, [bot])):
            one.kill()
            one.wait()
        process.stderr.close()


def until_sockets(enough: Callable[[int], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 15
    while not enough(len(Path("/proc/thread-self/net/packet").read_text().splitlines()) - 1):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.01)


def test_without_another_word_it_is_reached_by_both_families(directory: Path) -> None:
    """A node's InternalIP may be of either."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = program("--node", "node-a", CALICO_WHY_CERTS=str(directory), CALICO_WHY_PROBE_PORT=str(port))
    assert process.stderr is not None
    try:
        both = socket.has_dualstack_ipv6()
        where = "[::]" if both else "0.0.0.0"
        assert process.stderr.readline().endswith(f"probe of node-a listens on {where}:{port}\n")
        for host in ("127.0.0.1", "[::1]") if both else ("127.0.0.1",):
            assert asyncio.run(call(f"https://{host}:{port}/healthz", client(directory))) == (200, b"ok\n")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize("mode, said", [("", "table why_trace_*"), ("nft", "--trace nft"), ("off", "not followed")])
def test_its_log_says_what_following_packets_does_to_the_node(directory: Path, mode: str, said: str) -> None:
    environment = {"CALICO_WHY_CERTS": str(directory), "CALICO_WHY_TRACE": mode}
    process = program("--node", "node-a", "--listen", "127.0.0.1:0", **environment)
    assert process.stderr is not None
    try:
        process.stderr.readline()
        assert "the certificate of this probe is valid until" in process.stderr.readline()
        assert said in process.stderr.readline()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_what_keeps_it_from_starting_is_a_sentence(directory: Path, tmp_path: Path) -> None:
    certs.make(tmp_path / "other", ["node-a"])
    (tmp_path / "broken").mkdir()
    for name in ("ca.crt", "probe.crt", "probe.key"):
        (tmp_path / "broken" / name).write_text("nonsense")
    (tmp_path / "mixed").mkdir()
    for name, source in (("ca.crt", directory), ("probe.crt", directory), ("probe.key", tmp_path / "other")):
        (tmp_path / "mixed" / name).write_bytes((source / "node-a" / name).read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for words, status, said in (
            (["--certs", ""], 2, "calico-why certs"),
            (["--certs", str(tmp_path)], 3, "holds no ca.crt, probe.crt, probe.key"),
            (["--certs", str(tmp_path / "broken")], 3, "cannot be used"),
            (["--certs", str(tmp_path / "mixed")], 3, "cannot be used"),
            (["--certs", str(directory), "--trace", "some"], 2, "--trace some is none of all, nft, off"),
            (["--certs", str(directory), "--listen", "9797"], 2, "is not ADDRESS:PORT"),
            (["--certs", str(directory), "--listen", "127.0.0.1:99999"], 2, "is not ADDRESS:PORT"),
            (["--certs", str(directory), "--listen", f"127.0.0.1:{port}"], 3, "another process listens there"),
            (["--certs", str(directory), "--listen", "192.0.2.1:9797"], 3, "no such address"),
        ):
            process = program("--node", "node-a", *words)
            _, complaint = process.communicate(timeout=30)
            assert process.returncode == status, (words, complaint)
            assert said in complaint and "Traceback" not in complaint and complaint.count("\n") == 1, (words, complaint)


def test_its_words_say_what_they_are_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import argparse

    from node_probe import command

    monkeypatch.setenv("CALICO_WHY_PROBE_PORT", "9898")
    monkeypatch.setenv("CALICO_WHY_CERTS", "/etc/calico-why")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words: Any = parser.parse_args(["--node", "node-a"])
    assert (words.listen, words.certs) == ("[::]:9898", "/etc/calico-why")
