"""The round trip to the probes over real TLS on loopback: the trouble of one node is a Blind of no other."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

import facts
from bot.settings import Settings
from bot.sources.probes import LARGEST_ANSWER, NOT_A_PROBES, Probes
from facts import Blind, Endpoint, Fact, Neighbor, NodeAsk, Sighting, Sysctl, encode
from node_probe import tap
from node_probe.certs import make

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ASK = NodeAsk(node="node-a", uplink_address="172.30.0.11")
SEEN = Sysctl(node="node-a", name="net.ipv4.ip_forward", found=True, value="1")
HERE = {"node-a": "127.0.0.1"}
LOOPBACK = ("127.0.0.1", 0)


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certs")
    make(directory, ["node-a", "node-b", *(f"node-{i}" for i in range(4))])
    return directory


@contextlib.asynccontextmanager
async def probe(
    certs: Path, handler: Handler, node: str = "node-a", at: tuple[str, int] = LOOPBACK
) -> AsyncIterator[int]:
    """A server with a node's certificate that lets in only who has one of the same authority. Its port."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certs / "ca.crt"))
    tls.load_cert_chain(certs / node / "probe.crt", certs / node / "probe.key")
    tls.verify_mode = ssl.CERT_REQUIRED
    application = web.Application()
    application.router.add_post("/v1/facts", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    listener = socket.create_server(at)
    await web.SockSite(runner, listener, ssl_context=tls).start()
    try:
        yield listener.getsockname()[1]
    finally:
        await runner.cleanup()


def answering(*facts: Fact) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=encode(facts), content_type="application/json")

    return handler


async def ask(
    certs: Path | None,
    port: int,
    *asks: NodeAsk,
    addresses: dict[str, str] = HERE,
    deadline_s: float = 5.0,
    proxy: str = "",
) -> list[Fact]:
    settings = Settings(certs=certs, probe_port=port, probe_proxy=proxy)
    async with Probes(settings, deadline_s=deadline_s) as probes:
        return await probes.ask(asks or (ASK,), addresses)


async def blind(*args: object, **kwargs: object) -> str:
    """Why node-a could not be seen; fails when it could."""
    (fact,) = await ask(*args, **kwargs)  # type: ignore[arg-type]
    assert isinstance(fact, Blind) and (fact.node, fact.look) == ("node-a", "probe")
    return fact.reason


async def test_the_ask_arrives_and_the_facts_come_back(certs: Path) -> None:
    asked: list[NodeAsk] = []
    names: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(msgspec.json.decode(await request.read(), type=NodeAsk))
        peer = request.transport.get_extra_info("peercert") if request.transport else {}
        names.append(dict(part for one in peer["subject"] for part in one)["commonName"])
        return web.Response(body=encode([SEEN]))

    async with probe(certs, handler) as port:
        assert await ask(certs, port) == [SEEN]
    assert asked == [msgspec.structs.replace(ASK, mark=asked[0].mark)] and names == ["bot"]


async def test_probes_that_are_asked_together_know_each_other_by_a_mark(certs: Path) -> None:
    """Else one node would take it for the end of this question's packets when another question's were sent."""
    marks: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        marks.append(msgspec.json.decode(await request.read(), type=NodeAsk).mark)
        return web.Response(body=encode([]))

    other = msgspec.structs.replace(ASK, node="node-b")
    async with probe(certs, handler) as port, probe(certs, handler, "node-b", ("127.0.0.2", port)):
        await ask(certs, port, ASK, other, addresses=HERE | {"node-b": "127.0.0.2"})
        await ask(certs, port)
    assert marks[0] == marks[1] != marks[2]
    assert all(tap.MARK.fullmatch(one) for one in marks)


async def test_nobody_waits_longer_for_a_packet_than_the_settings_say_nor_than_the_ask_does(certs: Path) -> None:
    given: list[int] = []

    async def handler(request: web.Request) -> web.Response:
        given.append(msgspec.json.decode(await request.read(), type=NodeAsk).patience_ms)
        return web.Response(body=encode([]))

    async with probe(certs, handler) as port:
        for longest in (1000, 400):
            settings = Settings(certs=certs, probe_port=port, patience_ms=longest)
            async with Probes(settings) as probes:
                await probes.ask([ASK], HERE)
                await probes.ask([msgspec.structs.replace(ASK, patience_ms=200)], HERE)
    assert given == [1000, 200, 400, 200]


async def test_when_an_answer_came_is_told_by_the_asker(certs: Path) -> None:
    """Nodes' clocks differ, and a node that is reached late may look when the other looks no more."""
    met = Sighting(node="node-a", way="in", source_address="10.1.1.1", target_address="10.1.2.1", seen=0, answered_ms=7)

    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(0.3)
        return web.Response(body=encode([met]))

    async with probe(certs, handler) as port:
        (told,) = await ask(certs, port)
    assert isinstance(told, Sighting) and 300 <= told.answered_ms < 5000


async def test_the_probe_is_given_less_time_than_the_asker_has(certs: Path) -> None:
    given: list[int] = []

    async def handler(request: web.Request) -> web.Response:
        given.append(msgspec.json.decode(await request.read(), type=NodeAsk).deadline_ms)
        return web.Response(body=encode([]))

    async with probe(certs, handler) as port:
        await ask(certs, port, deadline_s=1.5)
        await ask(certs, port, deadline_s=60)
    assert given == [1000, ASK.deadline_ms]


async def test_all_nodes_are_asked_at_once_and_a_silent_one_costs_only_itself(certs: Path) -> None:
    """Every answer waits until all have been asked: asked one after the other, none would ever come."""
    arrived: list[str] = []
    everybody = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        node = msgspec.json.decode(await request.read(), type=NodeAsk).node
        arrived.append(node)
        if len(arrived) == 4:
            everybody.set()
        await everybody.wait()
        if node == "node-3":
            await asyncio.Event().wait()
        return web.Response(body=encode([Sysctl(node=node, name="x", found=True)]))

    nodes = [f"node-{i}" for i in range(4)]
    addresses = {node: f"127.0.0.{number}" for number, node in enumerate(nodes, 1)}
    async with contextlib.AsyncExitStack() as stack:
        port = 0
        for node, address in addresses.items():
            port = await stack.enter_async_context(probe(certs, handler, node, (address, port)))
        began = time.monotonic()
        asks = [NodeAsk(node=node) for node in nodes]
        facts = await ask(certs, port, *asks, addresses=addresses, deadline_s=1.0)
        assert time.monotonic() - began < 30
    assert [f.node for f in facts if isinstance(f, Sysctl)] == nodes[:3]
    (late,) = [f for f in facts if isinstance(f, Blind)]
    assert (late.node, late.reason) == ("node-3", "its probe at 127.0.0.4 did not answer in 1 s")


async def test_nothing_listens(certs: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert (await blind(certs, port)).endswith(f"127.0.0.1:{port}: connection refused, nothing listens there")


async def test_a_probe_of_another_authority(certs: Path, tmp_path: Path) -> None:
    make(tmp_path, ["node-a"])
    async with probe(tmp_path, answering(SEEN)) as port:
        assert "shows a certificate that is not to be trusted" in await blind(certs, port)


async def test_a_certificate_for_another_name(certs: Path, tmp_path: Path) -> None:
    """The bot's own certificate is signed by the same authority, and still no probe's."""
    shutil.copytree(certs, tmp_path, dirs_exist_ok=True)
    for end in ("crt", "key"):
        shutil.copy(certs / f"bot.{end}", tmp_path / "node-a" / f"probe.{end}")
    async with probe(tmp_path, answering(SEEN)) as port:
        assert "not to be trusted" in await blind(certs, port)


async def test_a_bot_the_probe_does_not_know(certs: Path, tmp_path: Path) -> None:
    make(tmp_path, ["node-a"])
    shutil.copy(certs / "ca.crt", tmp_path / "ca.crt")
    async with probe(certs, answering(SEEN)) as port:
        reason = await blind(tmp_path, port)
    assert "does not know the authority" in reason or "does not let this bot in" in reason or "broke off" in reason


async def test_a_probe_of_another_node_is_not_believed(certs: Path, tmp_path: Path) -> None:
    """Its address was given to another node, or somebody answers there with what they took from another node."""
    async with probe(certs, answering(SEEN), "node-b") as port:
        reason = await blind(certs, port)
        assert reason.startswith(f"who answers at 127.0.0.1:{port} is not its probe")
        assert "the certificate there does not name node-a" in reason
    long = "a" * 64 + ".example"
    make(tmp_path, [long])
    async with probe(tmp_path, answering(msgspec.structs.replace(SEEN, node=long)), long) as port:
        (seen,) = await ask(tmp_path, port, NodeAsk(node=long), addresses={long: "127.0.0.1"})
        assert isinstance(seen, Sysctl) and seen.node == long, (
            "a name that fits no certificate stands there as its hash"
        )


async def test_plain_text_where_tls_should_be(certs: Path) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server:
        assert "TLS" in await blind(certs, server.sockets[0].getsockname()[1])


async def test_no_certificates_are_told_once_a_node(certs: Path, tmp_path: Path) -> None:
    assert "set CALICO_WHY_CERTS" in await blind(None, 1)
    assert str(tmp_path) in await blind(tmp_path, 1)
    (tmp_path / "ca.crt").write_text("no certificate")
    assert "cannot be used" in await blind(tmp_path, 1)


async def test_a_node_without_an_address(certs: Path) -> None:
    assert "no InternalIP" in await blind(certs, 1, addresses={})


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (403, b"only the bot may ask", "its probe refused: 403 only the bot may ask"),
        (500, b"\xff\xfe broken", "its probe refused: 500"),
        (302, b"", "its probe refused: 302"),
        (200, b"not json", "no list of facts"),
        (200, b"{}", "no list of facts"),
        (200, b"\xff", "no list of facts"),
        (200, b"[" + b" " * (LARGEST_ANSWER + 1), "more than 4 MiB"),
    ],
)
async def test_answers_that_are_none(certs: Path, status: int, body: bytes, told: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers={"Location": "/elsewhere"} if status == 302 else {})

    async with probe(certs, handler) as port:
        assert told in await blind(certs, port)


async def test_an_answer_that_breaks_off(certs: Path) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"[{")
        assert request.transport is not None
        request.transport.abort()
        return response

    async with probe(certs, handler) as port:
        assert "broke off" in await blind(certs, port)


async def test_a_newer_probe_is_understood_as_far_as_possible(certs: Path) -> None:
    async def handler(request: web.Request) -> web.Response:
        known = {**msgspec.to_builtins(SEEN), "a_new_field": 1}
        return web.Response(body=msgspec.json.encode([known, {"fact": "Quantum", "node": "node-a"}]))

    async with probe(certs, handler) as port:
        sysctl, unknown = await ask(certs, port)
    assert sysctl == SEEN
    assert isinstance(unknown, Blind) and (unknown.node, unknown.look) == ("node-a", "Quantum")


async def test_a_probe_speaks_for_its_own_node_and_kernel_only(certs: Path) -> None:
    foreign = Neighbor(node="node-b", device="vxlan.calico", address="10.0.0.1", found=False)
    forged = Endpoint(name="shop/db", kind="pod", node="node-a")
    elsewhere = Blind(node="node-b", look="route", reason="r")
    async with probe(certs, answering(SEEN, foreign, forged, elsewhere)) as port:
        facts = await ask(certs, port)
    assert [f for f in facts if not isinstance(f, Blind)] == [SEEN]
    assert all(f.node == "node-a" for f in facts if isinstance(f, Blind | Sysctl))
    assert len(facts) == 4


@contextlib.asynccontextmanager
async def connect_proxy(*, allow: bool = True) -> AsyncIterator[tuple[str, list[str]]]:
    """An HTTP CONNECT proxy, and what it was asked to reach."""
    asked: list[str] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split(b"\r\n")[0].decode())
        if not allow:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        host, port = head.split()[1].decode().rsplit(":", 1)
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()


def test_what_no_probe_sees_is_taken_from_none() -> None:
    """Else a node that was taken over would say what only the API server knows; a new fact is easily forgotten."""
    probe = "".join(path.read_text() for path in (Path(__file__).parent.parent / "node_probe").rglob("*.py"))
    kinds = [one for one in vars(facts).values() if isinstance(one, type) and issubclass(one, Fact) and one is not Fact]
    assert len(kinds) > 40
    seen = {one.__name__ for one in kinds if f"{one.__name__}(" in probe}
    assert seen == {one.__name__ for one in kinds if not issubclass(one, NOT_A_PROBES)}


async def test_probes_behind_a_connect_proxy_keep_their_tls(certs: Path) -> None:
    async with probe(certs, answering(SEEN)) as port, connect_proxy() as (proxy, asked):
        assert await ask(certs, port, proxy=proxy) == [SEEN]
        assert asked == [f"CONNECT 127.0.0.1:{port} HTTP/1.1"]


async def test_a_proxy_that_refuses_and_one_that_is_gone(certs: Path) -> None:
    async with connect_proxy(allow=False) as (proxy, _):
        assert "502" in await blind(certs, 1, proxy=proxy)
    assert f"the proxy {proxy} cannot be reached: connection refused" in await blind(certs, 1, proxy=proxy)
