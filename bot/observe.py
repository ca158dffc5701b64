"""Where who runs the bot looks at it: GET /metrics, /healthz and /readyz, and nothing else; without it a bot that hangs
would be found by who waits for an answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

from aiohttp import web

from bot.errors import COULD_NOT_JUDGE, UserError
from bot.health import Health
from bot.metrics import CONTENT_TYPE, Metrics

log = logging.getLogger(__name__)

EXAMPLE = "127.0.0.1:9798"


def address(text: str) -> tuple[str, int] | None:
    """HOST:PORT, None for "". Raises UserError for what is neither."""
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or not int(port) < 65536:
        raise UserError(f"{text!r} is not HOST:PORT: CALICO_WHY_OBSERVE (or --observe) is such as {EXAMPLE}.")
    return host, int(port)


@contextlib.asynccontextmanager
async def observed(where: tuple[str, int] | None, metrics: Metrics, health: Health) -> AsyncGenerator[tuple[str, int]]:
    """Answers as long as it is open, also while the bot starts and ends; gives where. Raises UserError when it cannot
    listen there. It knows no secret, and lets in whoever reaches it."""
    if where is None:
        yield "", 0
        return

    async def measured(_: web.Request) -> web.Response:
        return web.Response(body=await asyncio.to_thread(metrics.text), headers={"Content-Type": CONTENT_TYPE})

    async def alive(_: web.Request) -> web.Response:
        return _said(health.dead())

    async def ready(_: web.Request) -> web.Response:
        return _said(await asyncio.to_thread(health.unready))

    app = web.Application(client_max_size=1)
    for path, answer in (("/metrics", measured), ("/healthz", alive), ("/readyz", ready)):
        app.router.add_get(path, answer, allow_head=False)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, *where).start()
        except OSError as error:
            raise UserError(
                f"The bot cannot be looked at on {where[0]}:{where[1]} ({error.strerror or error}). Set "
                "CALICO_WHY_OBSERVE to another HOST:PORT, or to nothing.",
                status=COULD_NOT_JUDGE,
            ) from error
        at: tuple[str, int] = runner.addresses[0][:2]
        log.info("looked at on %s:%s", *at)
        yield at
    finally:
        await runner.cleanup()


def _said(trouble: str) -> web.Response:
    return web.Response(status=503 if trouble else 200, text=f"{trouble or 'ok'}\n")
