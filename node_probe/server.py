"""The probe's only door: who may ask, how much, and how many at once; without it anybody could look into the node."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from certificates.names import BOT, CERTIFICATE_UNTIL
from facts import NodeAsk, encode
from facts.capture import CAPTURE_SECONDS, CaptureAsk, CaptureEnd, CaptureProgress
from facts.scene import SCENE_SECONDS, SceneAsk, SceneEnd
from node_probe.answer import LONGEST_S, Prober
from node_probe.capture import CannotCapture
from node_probe.door import Door
from node_probe.scene import scene

LARGEST_ASK = 256 * 1024
AT_ONCE = 8
CAPTURES_AT_ONCE = 2
CAPTURE_GRACE_S = 20.0  # for the last packets to be taken
SCENE_GRACE_S = 20.0  # for the last lines to be taken
WAITING = 64


log = logging.getLogger(__name__)

_encoder = msgspec.json.Encoder()


def application(prober: Prober, *, capture: str = "all", door: Door | None = None) -> web.Application:
    """POST /v1/facts, /v1/capture and /v1/scene, and GET /healthz, for holders of the bot's certificate. Closes the
    prober at the end. capture: what may be captured, "all", "headers" or "off". door: what lets clients in.
    """
    app = web.Application(middlewares=[_bot_only], client_max_size=LARGEST_ASK)
    app.router.add_post("/v1/facts", Facts(prober).post)
    app.router.add_post("/v1/capture", Captures(prober, capture).post)
    app.router.add_post("/v1/scene", Scenes(prober.node).post)

    async def close(_: web.Application) -> None:
        await prober.close()

    async def last(request: web.Request, response: web.StreamResponse) -> None:
        """Who was let in by certificates of before is answered once more; then they have to show theirs again."""
        if door and request.get_extra_info("sslcontext") is not door.context:
            response.headers["Connection"] = "close"
            response.force_close()

    async def healthz(_: web.Request) -> web.Response:
        told = {CERTIFICATE_UNTIL: door.until.isoformat()} if door else {}
        return web.Response(text="ok\n", headers=told)

    app.router.add_get("/healthz", healthz)
    app.on_cleanup.append(close)
    app.on_response_prepare.append(last)
    return app


class Facts:
    """Answers asks, a few at a time."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        self._free = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def post(self, request: web.Request) -> web.Response:
        arrived = time.monotonic()
        try:
            ask = msgspec.json.decode(await request.read(), type=NodeAsk)
        except msgspec.DecodeError as error:  # a field of the wrong kind is one too
            return web.Response(status=400, text=f"This is no question a probe understands: {error}.\n")
        if ask.node != self._prober.node:
            text = f"This is the probe of {self._prober.node}; it cannot answer for {ask.node}.\n"
            return web.Response(status=421, text=text)
        deadline = arrived + min(max(ask.deadline_ms / 1000, 0.0), LONGEST_S)
        async with self._turn(deadline) as admitted:
            if not admitted:
                text = f"The probe of {ask.node} is busy with other questions; ask again in a few seconds.\n"
                return web.Response(status=503, text=text, headers={"Retry-After": "2"})
            facts = await self._prober.answer(ask, deadline)
        return web.Response(body=encode(facts), content_type="application/json")

    @contextlib.asynccontextmanager
    async def _turn(self, deadline: float) -> AsyncIterator[bool]:
        """True when one of the places became free in time."""
        if self._free.locked() and self._waiting >= WAITING:
            yield False
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await self._free.acquire()
        except TimeoutError:
            yield False
            return
        finally:
            self._waiting -= 1
        try:
            yield True
        finally:
            self._free.release()


class Captures:
    """Captures packets of one flow for who asks, and stops when they hang up."""

    def __init__(self, prober: Prober, allowed: str) -> None:
        self._prober = prober
        self._allowed = allowed
        self._running = 0

    async def post(self, request: web.Request) -> web.StreamResponse:
        node = self._prober.node
        try:
            ask = msgspec.json.decode(await request.read(), type=CaptureAsk)
        except msgspec.DecodeError as error:
            return web.Response(status=400, text=f"This is no capture a probe understands: {error}.\n")
        if ask.node != node:
            text = f"This is the probe of {node}; it cannot capture on {ask.node}.\n"
            return web.Response(status=421, text=text)
        if self._allowed == "off" or (self._allowed == "headers" and ask.payload):
            what = "captures nothing" if self._allowed == "off" else "captures headers only"
            text = f"The probe of {node} {what}: whoever runs it started it with --capture {self._allowed}.\n"
            return web.Response(status=403, text=text)
        if self._running >= CAPTURES_AT_ONCE:
            text = f"The probe of {node} is busy with {self._running} captures; ask again when one has ended.\n"
            return web.Response(status=503, text=text, headers={"Retry-After": "5"})
        self._running += 1
        log.info("audit: captures %s", _described(ask))
        try:
            return await self._stream(request, ask)
        finally:
            self._running -= 1

    async def _stream(self, request: web.Request, ask: CaptureAsk) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        captured = "nothing: it was hung up before the first line"
        try:
            # Somebody who does not read what was captured must not keep the place for ever.
            async with (
                asyncio.timeout(CAPTURE_SECONDS + CAPTURE_GRACE_S),
                contextlib.aclosing(self._prober.capture(ask)) as lines,
            ):
                async for some in lines:
                    if not response.prepared:
                        await response.prepare(request)
                    for line in some:
                        if isinstance(line, CaptureProgress | CaptureEnd):
                            captured = f"{line.packets} packets"
                    await response.write(_encoder.encode_lines(some))
                await response.write_eof()
        except CannotCapture as error:
            captured = str(error)
            return web.Response(status=500, text=f"On {ask.node} nothing can be captured: {error}.\n")
        except (ConnectionError, TimeoutError):  # hung up: what was captured until then is with the bot
            captured += ", then it was hung up"
        except asyncio.CancelledError:
            captured += ", then it was hung up"
            raise
        finally:
            log.info("audit: captured %s, of %s", captured, _described(ask))
        return response


class Scenes:
    """Sends the scene of a fault to who asks, one at a time: it reads all there is."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._running = False

    async def post(self, request: web.Request) -> web.StreamResponse:
        try:
            ask = msgspec.json.decode(await request.read(), type=SceneAsk)
        except msgspec.DecodeError as error:
            return web.Response(status=400, text=f"This is no scene a probe understands: {error}.\n")
        if ask.node != self._node:
            text = f"This is the probe of {self._node}; it cannot tell of {ask.node}.\n"
            return web.Response(status=421, text=text)
        if self._running:
            text = f"The probe of {self._node} is busy with another bundle; ask again when it is done.\n"
            return web.Response(status=503, text=text, headers={"Retry-After": "5"})
        self._running = True
        log.info("audit: sends the scene")
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        try:
            async with (
                asyncio.timeout(SCENE_SECONDS + SCENE_GRACE_S),
                contextlib.aclosing(scene(self._node)) as lines,
            ):
                await response.prepare(request)
                async for line in lines:
                    await response.write(_encoder.encode(line) + b"\n")
                    if isinstance(line, SceneEnd):
                        log.info("audit: sent the scene, %d bytes", line.size)
                await response.write_eof()
        except (ConnectionError, TimeoutError):
            log.info("audit: of the scene not all was taken")
        finally:
            self._running = False
        return response


def _described(ask: CaptureAsk) -> str:
    what = f"{ask.protocol} port {ask.port}" if ask.port else "everything"
    pairs = ", ".join(f"{one} and {other}" for one, other in ask.pairs)
    return f"{what} between {pairs} ({'whole packets' if ask.payload else 'headers only'})"


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _bot_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """TLS has checked who signed the certificate; this checks whom it names, and that no connection outlives it."""
    certificate = request.get_extra_info("peercert")
    names = _common_names(certificate)
    if names != [BOT]:
        who = ", ".join(names) or "nobody"
        return web.Response(status=403, text=f"Only {BOT!r} may ask; this certificate names {who!r}.\n")
    if ssl.cert_time_to_seconds(certificate["notAfter"]) < time.time():
        text = f"The certificate of {BOT!r} has expired ({certificate['notAfter']}).\n"
        return web.Response(status=403, text=text, headers={"Connection": "close"})
    return await handler(request)


def _common_names(certificate: dict[str, Any] | None) -> list[str]:
    subject = (certificate or {}).get("subject", ())
    return [value for entry in subject for name, value in entry if name == "commonName"]
