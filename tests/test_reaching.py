"""How an API server is reached on clusters unlike the lab: what is installed there would else see nothing of them."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from kubernetes.aio.config import incluster_config

from bot import slack
from bot.sources.api import Api, Unreachable
from certificates.cluster import Trouble, connect
from certificates.making import Pair
from fixes import store
from lab.apiserver.kubeconfig import kubeconfig
from tests import foreign

NOWHERE = "192.0.2.1"  # RFC 5737


async def as_bot(path: str) -> None:
    api = await Api.connect(path, timeout_s=2.0)
    try:
        assert await api.get("/version") == {"gitVersion": "v1"}
    finally:
        await api.close()


async def as_fixer_and_signer(path: str) -> None:
    async with connect(path, "calico-why") as cluster:
        assert await cluster.send("GET", "/version") == {"gitVersion": "v1"}


async def test_a_server_that_is_gone_is_told_alike_by_all_who_ask(tmp_path: Path) -> None:
    """In words a person knows, with its address: a kubeconfig of another cluster is the most frequent reason."""
    file = tmp_path / "kubeconfig"
    file.write_text(kubeconfig("https://127.0.0.1:1", "token"))
    with pytest.raises(Unreachable) as asked:
        await as_bot(str(file))
    with pytest.raises(Trouble) as signing:
        await as_fixer_and_signer(str(file))
    async with store.connect(str(file), "calico-why") as requests:
        with pytest.raises(store.StoreError) as deciding:
            await requests.all()
    assert asked.value.reason == "https://127.0.0.1:1: connection refused"
    assert "reached (127.0.0.1:1: connection refused)" in str(signing.value)
    assert "reached (127.0.0.1:1: connection refused)" in deciding.value.sentence


READERS = pytest.mark.parametrize("read", [as_bot, as_fixer_and_signer])
Reader = Callable[[str], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(context: ssl.SSLContext) -> AsyncIterator[int]:
    async def version(_: web.Request) -> web.Response:
        return web.json_response({"gitVersion": "v1"})

    async def who(_: web.Request) -> web.Response:
        return web.json_response({"ok": True, "team": "T", "user_id": "U0BOT", "user": "calico"})

    app = web.Application()
    app.router.add_get("/version", version)
    app.router.add_post("/api/auth.test", who)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@READERS
async def test_an_authority_without_key_identifiers_is_believed(
    read: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EKS has such, and who upgraded a cluster since before 2020."""
    foreign.strict_as_from_python_3_13(monkeypatch)
    authority, context = old(tmp_path)
    async with serving(context) as port:
        file = tmp_path / "kubeconfig"
        file.write_text(kubeconfig(f"https://127.0.0.1:{port}", "token", authority.public.decode()))
        await read(str(file))


async def test_slack_is_believed_behind_a_proxy_that_looks_into_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its authority is named by SSL_CERT_FILE, and lacks as much."""
    foreign.strict_as_from_python_3_13(monkeypatch)
    authority, context = old(tmp_path)
    (tmp_path / "ca.crt").write_bytes(authority.public)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.crt"))
    slack.tls.cache_clear()
    try:
        async with serving(context) as port:
            found = slack.Slack(slack.web_client("xoxb-1", f"https://127.0.0.1:{port}/api/"))
            async with found.connected():
                assert (await found.who()).name == "calico"
    finally:
        slack.tls.cache_clear()


def old(directory: Path) -> tuple[Pair, ssl.SSLContext]:
    """An authority without identifiers, and what a server at 127.0.0.1 has of it."""
    authority, name, key = foreign.authority()
    pair = foreign.server(name, key, "127.0.0.1")
    (directory / "server.pem").write_bytes(pair.public + pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem")
    return authority, context


@contextlib.asynccontextmanager
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[bytes]]:
    """One to the world, which every program is told of. What it was asked for."""
    asked = list[bytes]()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("NO_PROXY", "192.0.2.0/24,.svc")
    async with server:
        yield asked


@READERS
async def test_a_pod_asks_the_api_server_beside_a_proxy_that_is_there_for_slack(
    read: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NO_PROXY names it by a range, which Python's programs do not understand."""
    authority = foreign.authority()[0]
    for variable, name, content in (
        ("SERVICE_TOKEN_FILENAME", "token", b"token"),
        ("SERVICE_CERT_FILENAME", "ca.crt", authority.public),
    ):
        (tmp_path / name).write_bytes(content)
        monkeypatch.setattr(incluster_config, variable, str(tmp_path / name))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", NOWHERE)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    async with proxy(monkeypatch) as asked:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3.0):
                with pytest.raises((Unreachable, Trouble)):
                    await read("")
    assert asked == []


@READERS
async def test_with_a_kubeconfig_that_proxy_is_the_way(
    read: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a terminal it may be the only one."""
    file = tmp_path / "kubeconfig"
    file.write_text(kubeconfig(f"https://{NOWHERE}:6443", "token", foreign.authority()[0].public.decode()))
    async with proxy(monkeypatch) as asked:
        with pytest.raises((Unreachable, Trouble)):
            await read(str(file))
    assert asked and all(one.startswith(f"CONNECT {NOWHERE}:6443".encode()) for one in asked)
