"""The one round trip to the probes of the nodes; without it the answer would rest on what the API believes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, NamedTuple

import aiohttp
import msgspec

from bot.settings import Settings
from bot.sources.clock import skew
from bot.sources.identity import Identity, NoIdentity
from bot.tracing import span
from certificates.names import CERTIFICATE_UNTIL, server_name
from certificates.trouble import brief
from facts import (
    DERIVED,
    AddressHolders,
    Allocation,
    Backend,
    Blind,
    BlockClaim,
    Bystander,
    CalicoNode,
    CalicoPod,
    CalicoSettings,
    Cause,
    Checked,
    Endpoint,
    Fact,
    GarbageCollector,
    LabelledEndpoint,
    LeakedAddresses,
    NetworkSet,
    NodeAsk,
    PoliciesRead,
    Policy,
    Pool,
    PoolUsage,
    Question,
    ServicePort,
    Sighting,
    Tier,
    Typha,
    decode,
    say,
)
from facts.capture import CaptureAsk, CaptureLine
from facts.scene import SCENE_BYTES, SceneAsk, SceneLine

LARGEST_ANSWER = 4 << 20  # bytes
LARGEST_CAPTURE = 16 << 20  # of its lines, bytes: four times what a probe may capture
GREETING_S = 1.0
BUSY = 503  # with other questions
LARGEST_SCENE = 2 * SCENE_BYTES  # of its lines, bytes
SILENT_S = 10.0  # a probe that captures says something every half second
# What the API server says or what is deduced. A probe that says such a thing is not believed.
NOT_A_PROBES = (
    AddressHolders,
    Allocation,
    Backend,
    BlockClaim,
    Bystander,
    CalicoNode,
    CalicoPod,
    CalicoSettings,
    Cause,
    Checked,
    Endpoint,
    GarbageCollector,
    LabelledEndpoint,
    LeakedAddresses,
    NetworkSet,
    PoliciesRead,
    Policy,
    Pool,
    PoolUsage,
    Question,
    ServicePort,
    Tier,
    Typha,
    *DERIVED,
)
CONNECT_S = 4.0
CERT_NOT_YET_VALID, CERT_HAS_EXPIRED, HOSTNAME_MISMATCH = 9, 10, 62  # X509_V_ERR_*
_HEAD_START_S = 0.5  # what a probe has must have left it before the deadline here


_capture_line = msgspec.json.Decoder(CaptureLine)
_scene_line = msgspec.json.Decoder(SceneLine)


class CannotCapture(Exception):
    """A node's probe captures nothing, or no more. reason: why, as `say` puts it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Heard(NamedTuple):
    """A line of a capture. Times in ns since 1970, by this machine's clock."""

    sent_ns: int  # when the probe was asked
    came_ns: int
    line: CaptureLine


class Met(NamedTuple):
    """ahead_s: by which its clock surely is ahead of ours (negative: behind); None where it does not say. until: when
    its certificate runs out."""

    ahead_s: float | None = None
    until: datetime | None = None


class Probes:
    """Asks any number of nodes at once over mutual TLS. `ask` has one deadline, and never raises: it tells a `Blind`.

    async with Probes(settings) as probes:
        facts = await probes.ask(asks, {"node-a": "172.30.0.11"})
    """

    def __init__(self, settings: Settings, *, deadline_s: float = 6.0) -> None:
        self._settings = settings
        self._deadline_s = deadline_s
        self._identity = Identity(settings.certs)
        self._session: aiohttp.ClientSession | None = None
        self.asked: Callable[[bool, float], None] = lambda *_: None  # is told of each ask if it was answered, and in s

    @property
    def port(self) -> int:
        """Where they listen, on every node."""
        return self._settings.probe_port

    async def __aenter__(self) -> Probes:
        # A node that is dead does not even connect; one that asks its Felix twice needs longer to answer.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=min(CONNECT_S, self._deadline_s))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=timeout, trust_env=False, auto_decompress=True
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session:
            await self._session.close()

    async def ask(self, asks: Sequence[NodeAsk], addresses: Mapping[str, str]) -> list[Fact]:
        """What the probes of the asked nodes saw. addresses: node name to the address its probe listens on."""
        asked = asyncio.get_running_loop().time()
        mark = secrets.token_hex(8)
        answers = await asyncio.gather(*(self._timed(ask, addresses.get(ask.node, ""), asked, mark) for ask in asks))
        return [fact for answer in answers for fact in answer]

    async def greet(self, addresses: Mapping[str, str]) -> None:
        """Connects to probes beforehand, as far as they answer soon: what they are asked next begins at one moment,
        and says something of their clocks. addresses: as `ask` has them."""

        async def greet(session: aiohttp.ClientSession, node: str, address: str) -> None:
            with contextlib.suppress(NoIdentity, aiohttp.ClientError, OSError, ssl.SSLError):
                url, where = self._where(node, address, "/healthz")
                async with session.get(url, **where) as response:
                    await response.read()

        if self._session is not None and (reached := [(node, at) for node, at in addresses.items() if at]):
            greeting = [asyncio.ensure_future(greet(self._session, *one)) for one in reached]
            _, late = await asyncio.wait(greeting, timeout=GREETING_S)
            for one in late:
                one.cancel()

    async def met(self, node: str, address: str) -> Met:
        """What a probe says of itself."""
        if self._session is None or not address:
            return Met()
        sent = time.time()
        try:
            url, where = self._where(node, address, "/healthz")
            async with asyncio.timeout(self._deadline_s), self._session.get(url, **where) as response:
                ahead_s = skew(response.headers.get("Date", ""), sent, time.time())
                return Met(ahead_s, _time(response.headers.get(CERTIFICATE_UNTIL, "")))
        except (NoIdentity, aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError):
            return Met()

    def certified_until(self) -> datetime | None:
        """When the bot's own certificate runs out, or did; None where it has none that could be used."""
        try:
            return self._identity.expires()
        except NoIdentity:
            return None

    def _where(self, node: str, address: str, path: str) -> tuple[str, dict[str, Any]]:
        """The URL, and how it is to be asked for: whoever answers has to show the certificate of that node.

        Raises NoIdentity.
        """
        host = f"[{address}]" if ":" in address else address
        return f"https://{host}:{self._settings.probe_port}{path}", {
            "ssl": self._identity.tls(),
            "server_hostname": server_name(node),
            "proxy": self._settings.probe_proxy or None,
            "allow_redirects": False,
            "timeout": aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENT_S),
        }

    async def capture(self, ask: CaptureAsk, address: str) -> AsyncGenerator[Heard]:
        """What a node's probe captures, line by line as it comes; it stops when the generator is closed.

        Raises CannotCapture, also in the middle.
        """
        if not address:
            raise CannotCapture(say("the API gives no InternalIP for it, so its probe cannot be found"))
        if self._session is None:
            raise CannotCapture(say("not connected"))
        try:
            sent_ns = time.time_ns()
            url, where = self._where(ask.node, address, "/v1/capture")
            async with self._session.post(url, data=msgspec.json.encode(ask), **where) as response:
                if response.status != 200:
                    raise CannotCapture(_refused(response.status, await _read(response) or b""))
                async for line in _lines(response):
                    yield Heard(sent_ns, time.time_ns(), line)
        except NoIdentity as error:
            raise CannotCapture(error.reason) from None
        except aiohttp.ServerTimeoutError:
            late = say("its probe at {address} says nothing", address=address)
            raise CannotCapture(late) from None
        except (aiohttp.ClientError, OSError, ssl.SSLError) as error:  # first: of a certificate it is a ValueError, too
            raise CannotCapture(_reason(error, ask.node, address, self._settings)) from error
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            strange = say("its probe answered with something that is no capture ({error})", error=error)
            raise CannotCapture(strange) from error

    async def scene(self, node: str, address: str) -> AsyncGenerator[SceneLine]:
        """What a node's probe keeps of the scene, as it comes. Raises CannotCapture, also in the middle."""
        if not address:
            raise CannotCapture(say("the API gives no InternalIP for it, so its probe cannot be found"))
        if self._session is None:
            raise CannotCapture(say("not connected"))
        size = 0
        try:
            url, where = self._where(node, address, "/v1/scene")
            async with self._session.post(url, data=msgspec.json.encode(SceneAsk(node=node)), **where) as response:
                if response.status == 404:
                    raise CannotCapture(say("its probe is of a version that keeps no scene; bring it to this version"))
                if response.status != 200:
                    raise CannotCapture(_refused(response.status, await _read(response) or b""))
                async for part in response.content:
                    size += len(part)
                    if size > LARGEST_SCENE:
                        raise ValueError(f"more than {LARGEST_SCENE >> 20} MiB")
                    yield _scene_line.decode(part)
        except NoIdentity as error:
            raise CannotCapture(error.reason) from None
        except aiohttp.ServerTimeoutError:
            raise CannotCapture(say("its probe at {address} says nothing", address=address)) from None
        except (aiohttp.ClientError, OSError, ssl.SSLError) as error:  # first: of a certificate it is a ValueError, too
            raise CannotCapture(_reason(error, node, address, self._settings)) from error
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            strange = say("its probe answered with something that is no scene ({error})", error=error)
            raise CannotCapture(strange) from error

    async def _timed(self, ask: NodeAsk, address: str, asked: float, mark: str) -> list[Fact]:
        """What a probe looked at while others did cannot be told by the nodes' clocks, which may differ."""
        with span("probe", node=ask.node):
            facts = await self._one(ask, address, mark)
        seconds = asyncio.get_running_loop().time() - asked
        self.asked(not any(isinstance(fact, Blind) and fact.look == "probe" for fact in facts), seconds)
        answered_ms = int(seconds * 1000)
        return [
            msgspec.structs.replace(fact, answered_ms=answered_ms) if isinstance(fact, Sighting) else fact
            for fact in facts
        ]

    async def _one(self, ask: NodeAsk, address: str, mark: str) -> list[Fact]:
        if not address:
            return [_blind(ask.node, say("the API gives no InternalIP for it, so its probe cannot be found"))]
        if self._session is None:
            return [_blind(ask.node, say("not connected"))]
        host = f"[{address}]" if ":" in address else address
        url = f"https://{host}:{self._settings.probe_port}/v1/facts"
        enough_ms = max(int((self._deadline_s - _HEAD_START_S) * 1000), 100)
        within = {
            "deadline_ms": min(ask.deadline_ms, enough_ms),
            "patience_ms": min(ask.patience_ms, self._settings.patience_ms),
        }
        body = msgspec.json.encode(msgspec.structs.replace(ask, mark=mark, **within))
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._post(self._session, url, body, ask.node)
        except NoIdentity as error:
            return [_blind(ask.node, error.reason)]
        except aiohttp.ServerTimeoutError:
            late = say(
                "its probe at {address} could not be connected to in {seconds} s",
                address=address,
                seconds=f"{CONNECT_S:g}",
            )
            return [_blind(ask.node, late)]
        except TimeoutError:
            late = say(
                "its probe at {address} did not answer in {seconds} s", address=address, seconds=f"{self._deadline_s:g}"
            )
            return [_blind(ask.node, late)]
        except (aiohttp.ClientError, OSError, ssl.SSLError) as error:
            return [_blind(ask.node, _reason(error, ask.node, address, self._settings))]

    async def _post(self, session: aiohttp.ClientSession, url: str, body: bytes, node: str) -> list[Fact]:
        async with session.post(
            url,
            data=body,
            headers={"Content-Type": "application/json"},
            ssl=self._identity.tls(),
            server_hostname=server_name(node),
            proxy=self._settings.probe_proxy or None,
            allow_redirects=False,
        ) as response:
            answer = await _read(response)
            if answer is None:
                return [_blind(node, say("its probe answered with more than {size} MiB", size=LARGEST_ANSWER >> 20))]
            if response.status != 200:
                said = answer[:200].decode("utf-8", "replace").strip()
                refused = _blind(node, say("its probe refused: {answer}", answer=f"{response.status} {said}".strip()))
                return [msgspec.structs.replace(refused, late=response.status == BUSY)]
        try:
            return [_own(fact, node) for fact in decode(answer, node=node)]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return [
                _blind(node, say("its probe answered with something that is no list of facts ({error})", error=error))
            ]


def _time(text: str) -> datetime | None:
    """None for what is no time with its zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None


async def _lines(response: aiohttp.ClientResponse) -> AsyncGenerator[CaptureLine]:
    """Raises ValueError for what no probe would send, msgspec.DecodeError."""
    size = 0
    while line := await response.content.readline():
        size += len(line)
        if size > LARGEST_CAPTURE:
            raise ValueError(f"more than {LARGEST_CAPTURE >> 20} MiB")
        yield _capture_line.decode(line)


def _refused(status: int, answer: bytes) -> str:
    if status == 404:
        return say("its probe is of a version that captures nothing; bring it to this version")
    said = answer[:300].decode("utf-8", "replace").strip()
    return say("its probe refused: {answer}", answer=f"{status} {said}".strip())


def _own(fact: Fact, node: str) -> Fact:
    """The fact, when a probe of that node can have seen it: one bad node must not speak for others, or for the API."""
    if isinstance(fact, Blind):
        return msgspec.structs.replace(fact, node=node, message=None)  # its words are taken, a template is not
    if isinstance(fact, NOT_A_PROBES) or getattr(fact, "node", None) != node:
        return _blind(node, say("its probe sent a {kind} that is not its own to see", kind=type(fact).__name__))
    return fact


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """The body; None when it is larger than any honest answer."""
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_chunked(1 << 16):
        size += len(part)
        if size > LARGEST_ANSWER:
            return None
        parts.append(part)
    return b"".join(parts)


def _reason(error: Exception, node: str, address: str, settings: Settings) -> str:
    """What went wrong with one probe, in plain words."""
    where = say("its probe at {address}", address=f"{address}:{settings.probe_port}")
    why = brief(error)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        code = getattr(error.certificate_error, "verify_code", 0)
        if code == CERT_HAS_EXPIRED:
            return say(
                "{probe} shows a certificate that has expired: in a cluster the container `certificate` beside it "
                "renews it (see its log), by hand it is made anew by `calico-why certs`",
                probe=where,
            )
        if code == CERT_NOT_YET_VALID:
            return say(
                "{probe} shows a certificate that is not valid yet: the clock there, here or of who signed it is wrong",
                probe=where,
            )
        if code == HOSTNAME_MISMATCH:
            return say(
                "who answers at {address} is not its probe: the certificate there does not name {node}. The address "
                "may be another node's by now, or a certificate of another node is used there",
                address=f"{address}:{settings.probe_port}",
                node=node,
            )
        return say("{probe} shows a certificate that is not to be trusted: {why}", probe=where, why=why)
    if "certificate expired" in why:
        return say(
            "{probe} says that the certificate of the bot has expired, or the clock of the node is wrong", probe=where
        )
    if "unknown ca" in why:
        return say(
            "{probe} does not know the authority of the bot's certificate: both have to be made by the same "
            "`calico-why certs` or calico-why-signer",
            probe=where,
        )
    if isinstance(error, aiohttp.ClientConnectorSSLError | ssl.SSLError):
        return say("{probe} does not agree on TLS: {why}", probe=where, why=why)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return say("the proxy {proxy} cannot be reached: {why}", proxy=settings.probe_proxy, why=why)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return say(
            "the proxy {proxy} does not reach {probe}: {why}",
            proxy=settings.probe_proxy,
            probe=where,
            why=f"{error.status} {error.message}",
        )
    if isinstance(error, ConnectionRefusedError) or isinstance(
        getattr(error, "os_error", None), ConnectionRefusedError
    ):
        return say("{probe}: connection refused, nothing listens there", probe=where)
    if getattr(error, "errno", None) == errno.ECONNRESET:
        return say(
            "{probe} hung up before it answered: it has ended, or it does not let this bot in, whose certificate is of "
            "another authority or has expired",
            probe=where,
        )
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError | aiohttp.ClientPayloadError):
        return say("{probe} broke off before its answer was complete", probe=where)
    return say("{probe}: {why}", probe=where, why=why)


def _blind(node: str, reason: str) -> Blind:
    return Blind(node=node, look="probe", reason=reason)
