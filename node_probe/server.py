"""The probe's only door: who may ask, how much, and how many at once; without it anybody could look into the node."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from facts import NodeAsk, encode
from node_probe.answer import LONGEST_S, Prober
from node_probe.errors import CannotStart

ASKER = "bot"  # common name of the only client certificate that may ask
LARGEST_ASK = 256 * 1024
AT_ONCE = 8
WAITING = 64
HANDSHAKE_S = 5  # for a stranger who connects and says nothing


def tls(directory: Path) -> ssl.SSLContext:
    """Mutual TLS out of ca.crt, probe.crt and probe.key. Raises CannotStart."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    files = [directory / name for name in ("ca.crt", "probe.crt", "probe.key")]
    advice = f"make them with `calico-why certs --directory {directory}`, or name another directory with --certs"
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise CannotStart(f"{directory} holds no {', '.join(missing)}, so nobody could be let in: {advice}.")
    try:
        context.load_verify_locations(files[0])
        context.load_cert_chain(files[1], files[2])
    except PermissionError as error:
        raise CannotStart(f"{error.filename or directory} may not be read by this user: {error.strerror}.") from error
    except (ssl.SSLError, OSError) as error:
        why = getattr(error, "reason", "") or error.strerror or str(error)
        raise CannotStart(f"the certificates in {directory} cannot be used ({why}): {advice}.") from error
    return context


def application(prober: Prober) -> web.Application:
    """POST /v1/facts and GET /healthz for holders of the bot's certificate. Closes the prober at the end."""
    app = web.Application(middlewares=[_bot_only], client_max_size=LARGEST_ASK)
    app.router.add_post("/v1/facts", Facts(prober).post)
    app.router.add_get("/healthz", _healthz)

    async def close(_: web.Application) -> None:
        await prober.close()

    app.on_cleanup.append(close)
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


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _bot_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """TLS has checked who signed the certificate; this checks whom it names."""
    names = _common_names(request.get_extra_info("peercert"))
    if names != [ASKER]:
        who = ", ".join(names) or "nobody"
        return web.Response(status=403, text=f"Only {ASKER!r} may ask; this certificate names {who!r}.\n")
    return await handler(request)


def _common_names(certificate: dict[str, Any] | None) -> list[str]:
    subject = (certificate or {}).get("subject", ())
    return [value for entry in subject for name, value in entry if name == "commonName"]
