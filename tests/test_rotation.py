"""Certificates are renewed while questions are asked, on real sockets: none fails, and what has run out is told."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web
from cryptography import x509

from bot.settings import Settings
from bot.sources.probes import Probes
from certificates import making
from certificates.files import generation, replace
from facts import Blind, Fact, NodeAsk, Sysctl, decode
from node_probe import command, server
from node_probe.answer import Prober
from node_probe.collectors import Collector
from node_probe.door import Door
from node_probe.view import View

ASK = NodeAsk(node="node-a")
DAY = datetime.timedelta(days=1)
OVER = datetime.timedelta(seconds=-60)  # a life that ended: it began ten minutes ago, for clocks that are behind


class Place:
    """Directories of a bot and of the probe of node-a, as Kubernetes and `calico-why certificate` would fill them."""

    def __init__(self, directory: Path) -> None:
        self.bot, self.probe = directory / "bot", directory / "probe"
        for one in (self.bot, self.probe):
            one.mkdir()
        self.authority = making.authority(DAY)
        self.trusted = self.authority.public
        self.certify_bot()
        self.certify_probe()

    def certify_bot(self, life: datetime.timedelta = DAY) -> None:
        pair = making.bot(self.authority, life)
        replace(self.bot, {"ca.crt": self.trusted, "bot.crt": pair.public, "bot.key": pair.key})

    def certify_probe(self, node: str = "node-a", life: datetime.timedelta = DAY) -> None:
        pair = making.probe(self.authority, node, life)
        replace(self.probe, {"ca.crt": self.trusted, "probe.crt": pair.public, "probe.key": pair.key})

    def trust(self, *authorities: making.Pair) -> None:
        """Both sides take these, and show what they have shown before."""
        self.trusted = b"".join(one.public for one in authorities)
        for one in (self.bot, self.probe):
            kept = {file.name: file.read_bytes() for file in generation(one).iterdir()}
            replace(one, {**kept, "ca.crt": self.trusted})

    def serial(self) -> int:
        return making.load((self.probe / "probe.crt").read_bytes()).serial_number


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr("node_probe.door.LOOK_S", 0.05)
    return Place(tmp_path)


def seen(ask: NodeAsk, view: View) -> Iterator[Fact]:
    yield Sysctl(node=ask.node, name="seen", found=True)


@contextlib.asynccontextmanager
async def probe(place: Place, **more: Collector) -> AsyncIterator[int]:
    """The door and what is behind it, as the program has them. Its port."""
    listening = command._listening("127.0.0.1", 0)
    door = Door(listening, place.probe, "node-a")
    runner = web.AppRunner(server.application(Prober("node-a", {"seen": seen, **more}), door=door), shutdown_timeout=1)
    await runner.setup()
    assert runner.server is not None
    opened = asyncio.create_task(door.open(runner.server))
    try:
        yield listening.getsockname()[1]
        assert not opened.done()
    finally:
        opened.cancel()
        door.close()
        await runner.cleanup()


async def shown(place: Place, port: int) -> int:
    """Serial number of the certificate that a new connection is shown, be it good or not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(place.bot / "bot.crt", place.bot / "bot.key")
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(certificate).serial_number


async def taken_up(place: Place, port: int) -> None:
    """Until the probe shows what is in its directory."""
    async with asyncio.timeout(20):
        while await shown(place, port) != place.serial():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def reason(place: Place, port: int) -> str:
    """Why node-a cannot be seen."""
    async with Probes(Settings(certs=place.bot, probe_port=port)) as probes:
        (fact,) = await probes.ask([ASK], {"node-a": "127.0.0.1"})
    assert isinstance(fact, Blind)
    return fact.reason


async def test_no_question_fails_while_authority_and_certificates_are_replaced(place: Place) -> None:
    """Four askers without a pause, one that connects anew each time; a question that is under way is answered."""
    answered, ended = 0, asyncio.Event()

    async def asks(probes: Probes | None, port: int) -> None:
        nonlocal answered
        while not ended.is_set():
            async with contextlib.AsyncExitStack() as stack:
                own = probes or await stack.enter_async_context(Probes(Settings(certs=place.bot, probe_port=port)))
                facts = await own.ask([ASK], {"node-a": "127.0.0.1"})
            assert [type(one) for one in facts] == [Sysctl], facts
            answered += 1
            await asyncio.sleep(0)

    async def more() -> None:
        """Until both kinds of askers surely were answered by what is there now."""
        async with asyncio.timeout(20):
            wanted = answered + 40
            while answered < wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    first = place.authority
    async with probe(place) as port, Probes(Settings(certs=place.bot, probe_port=port)) as probes:
        async with asyncio.TaskGroup() as group:
            for one in (probes, probes, probes, None):
                group.create_task(asks(one, port))
            await more()
            for _ in range(3):
                place.certify_probe()
                await taken_up(place, port)
                place.certify_bot()
                await more()
            second = making.authority(DAY)
            place.trust(first, second)
            await taken_up(place, port)
            await more()
            await asyncio.sleep(0.2)  # both have looked: who renews waits for much longer
            place.authority = second
            place.certify_probe()
            await taken_up(place, port)
            place.certify_bot()
            await more()
            place.trust(second)
            await more()
            ended.set()
        place.authority = first
        place.certify_bot()
        place.trusted = second.public
        told = await reason_of_stranger(place, port)
    assert "does not know the authority" in told or "does not let this bot in" in told


async def reason_of_stranger(place: Place, port: int) -> str:
    """Of a bot that trusts the probe, and shows what the probe trusted before."""
    async with asyncio.timeout(20):
        while True:
            pair = making.bot(place.authority, DAY)
            replace(place.bot, {"ca.crt": place.trusted, "bot.crt": pair.public, "bot.key": pair.key})
            async with Probes(Settings(certs=place.bot, probe_port=port)) as probes:
                (fact,) = await probes.ask([ASK], {"node-a": "127.0.0.1"})
            if isinstance(fact, Blind):
                return fact.reason


async def test_an_answer_under_way_is_not_broken_off(place: Place) -> None:
    release, begun = asyncio.Event(), asyncio.Event()

    async def slow(ask: NodeAsk, view: View) -> AsyncIterator[Fact]:
        begun.set()
        await release.wait()
        yield Sysctl(node=ask.node, name="late", found=True)

    context = ssl.create_default_context(cafile=str(place.bot / "ca.crt"))
    context.load_cert_chain(place.bot / "bot.crt", place.bot / "bot.key")
    body = msgspec.json.encode(NodeAsk(node="node-a", deadline_ms=20_000))
    connector = aiohttp.TCPConnector(ssl=context)
    async with probe(place, slow=slow) as port, aiohttp.ClientSession(connector=connector) as session:
        url = f"https://127.0.0.1:{port}/v1/facts"
        asking = asyncio.ensure_future(session.post(url, data=body, server_hostname="node-a.probe.calico-why"))
        await begun.wait()
        place.certify_probe()
        await taken_up(place, port)
        release.set()
        async with await asking as answer:
            found = decode(await answer.read())
            assert Sysctl(node="node-a", name="late", found=True) in found and len(found) == 2
            assert answer.headers["Connection"] == "close", "who was let in before shows its certificate again"


async def test_what_has_expired_is_refused_and_told_with_what_to_do(place: Place) -> None:
    async with probe(place) as port, Probes(Settings(certs=place.bot, probe_port=port)) as probes:
        place.certify_probe(life=OVER)
        await taken_up(place, port)
        assert await reason(place, port) == (
            f"its probe at 127.0.0.1:{port} shows a certificate that has expired: in a cluster the container "
            "`certificate` beside it renews it (see its log), by hand it is made anew by `calico-why certs`"
        )
        place.certify_probe()
        await taken_up(place, port)
        place.certify_bot(life=OVER)
        told = await reason(place, port)
        assert told.startswith(f"the bot's certificate in {place.bot} expired on ")
        assert "calico-why-signer renews it" in told and "`calico-why certs --force`" in told
        place.certify_bot()
        (fact,) = await probes.ask([ASK], {"node-a": "127.0.0.1"})
        assert isinstance(fact, Sysctl), "and it goes on when they are renewed"


async def test_an_authority_that_has_expired_is_not_taken_for_its_probes(place: Place) -> None:
    """Theirs may outlive it, where somebody else signs them."""
    async with probe(place) as port:
        place.trust(making.authority(OVER))
        told = await reason(place, port)
        assert told.startswith(f"the authority in {place.bot}/ca.crt expired on ")
        assert "`calico-why certs --force`" in told
        place.trust(making.authority(OVER), place.authority)
        await taken_up(place, port)
        async with Probes(Settings(certs=place.bot, probe_port=port)) as probes:
            (fact,) = await probes.ask([ASK], {"node-a": "127.0.0.1"})
        assert isinstance(fact, Sysctl), "one that is over does no harm beside one that holds"


async def test_a_probe_refuses_an_expired_bot_whose_clock_is_behind(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with probe(place) as port:
        place.certify_bot(life=OVER)
        monkeypatch.setattr("bot.sources.identity.datetime", Yesterday)
        told = await reason(place, port)
    # In the last words of TLS, or where those are lost, by hanging up.
    assert "says that the certificate of the bot has expired" in told or "does not let this bot in" in told


class Yesterday(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Yesterday:
        then = datetime.datetime.now(tz) - DAY
        return cls.fromtimestamp(then.timestamp(), tz)


async def test_a_connection_does_not_outlive_the_certificate_it_was_opened_with(place: Place) -> None:
    place.certify_bot(life=datetime.timedelta(seconds=3))
    context = ssl.create_default_context(cafile=str(place.bot / "ca.crt"))
    context.load_cert_chain(place.bot / "bot.crt", place.bot / "bot.key")
    async with probe(place) as port, aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:

        async def greeted() -> tuple[int, str]:
            url = f"https://127.0.0.1:{port}/healthz"
            async with session.get(url, server_hostname="node-a.probe.calico-why") as answer:
                return answer.status, await answer.text()

        assert await greeted() == (200, "ok\n")
        async with asyncio.timeout(20):
            while (answer := await greeted())[0] == 200:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert answer[0] == 403 and "certificate of 'bot' has expired" in answer[1]
        with pytest.raises(aiohttp.ClientError):
            await greeted()


async def test_what_cannot_be_used_is_not_taken_up(place: Place) -> None:
    async with probe(place) as port:
        serial = place.serial()
        good = (place.probe / "probe.key").read_bytes()
        for file in (place.probe, place.bot):
            name = "probe" if file == place.probe else "bot"
            kept = {one.name: one.read_bytes() for one in generation(file).iterdir()}
            replace(file, {**kept, f"{name}.key": making.request("node-a").key})
        await asyncio.sleep(0.3)
        async with Probes(Settings(certs=place.bot, probe_port=port)) as probes:
            (fact,) = await probes.ask([ASK], {"node-a": "127.0.0.1"})
        assert isinstance(fact, Blind) and "cannot be used" in fact.reason, "a bot that starts has nothing of before"
        place.certify_bot()
        assert await shown(place, port) == serial
        kept = {one.name: one.read_bytes() for one in generation(place.probe).iterdir()}
        replace(place.probe, {**kept, "probe.key": good})
        await taken_up(place, port)


def test_another_generation_is_read_as_a_whole_and_of_the_last_one_nothing_is_left(tmp_path: Path) -> None:
    replace(tmp_path, {"a.key": b"1", "b.crt": b"1"})
    before = generation(tmp_path)
    replace(tmp_path, {"a.key": b"2", "b.crt": b"2"})
    assert (generation(tmp_path) / "a.key").read_bytes() == (tmp_path / "b.crt").read_bytes() == b"2"
    assert (tmp_path / "a.key").stat().st_mode & 0o777 == 0o600
    assert not before.exists()
    assert sorted(one.name for one in tmp_path.iterdir() if not one.name.startswith("..")) == ["a.key", "b.crt"]
    assert len(list(tmp_path.glob("..*"))) == 2


def test_a_probe_that_is_told_to_waits_for_its_certificates(tmp_path: Path) -> None:
    place = tmp_path / "certs"
    place.mkdir()
    words = ["probe", "--node", "node-a", "--listen", "127.0.0.1:0", "--certs", str(place), "--wait-for-certs"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALICO_WHY_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "bot.cli", *words],
        env=kept,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert process.stderr is not None
    try:
        assert "Waiting for them" in process.stderr.readline()
        authority = making.authority(DAY)
        pair = making.probe(authority, "node-a", DAY)
        replace(place, {"ca.crt": authority.public, "probe.crt": pair.public, "probe.key": pair.key})
        assert "probe of node-a listens on 127.0.0.1:" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
