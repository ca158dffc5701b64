"""The two ways Slack delivers, Socket Mode and HTTP; without it no question would come in, or none after an outage."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_bolt.response import BoltResponse
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.web.async_client import AsyncWebClient

from bot.errors import COULD_NOT_JUDGE, UserError
from bot.health import Health
from bot.slack import AGAIN_S, SLACK_API, Slack, SlackGone, web_client

log = logging.getLogger(__name__)

T = TypeVar("T")

PATH = "/slack/events"
CONNECTED_EVERY_S = 5.0
RECONNECT_AFTER_S = 30.0
GIVE_UP_AFTER_S = 180.0
CONNECT_S = 20.0
IDLE_S = 900.0  # after which a socket that brought nothing is replaced: it may answer pings and never bring anything
IDLE_AGAIN_S = 60.0  # where that does not succeed; Slack gives a ticket a minute
SLACK_WAITS_S = 3.0  # for an acknowledgement
PING_S = 10.0
CLOSED_IN_S = 3.0
BODY_MAX = 1 << 20

_TIMESTAMP = re.compile(r"[0-9]{10}")
_SIGNATURE = re.compile(r"v0=[0-9a-f]{64}")
_DELIVERIES = {"event_callback": "event", "block_actions": "action", "view_submission": "form"}

Body = Mapping[str, Any]


class SlackSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How Slack reaches the bot and the bot Slack."""

    bot_token: str
    app_token: str = ""  # Socket Mode
    signing_secret: str = ""  # HTTP mode
    mode: str = "socket"  # socket | http
    listen: tuple[str, int] = ("127.0.0.1", 3000)
    api_url: str = SLACK_API
    shared: str = ""  # in channels shared with another workspace: refuse | answer; "" answers, and preflight objects


class Delivery:
    """Brings to Bolt what Slack delivers, and keeps `health` true. address: in HTTP mode, once it listens."""

    def __init__(self, settings: SlackSettings, slack: Slack, health: Health) -> None:
        self._settings = settings
        self._slack = slack
        self._health = health
        self.address: tuple[str, int] | None = None
        self.ready = asyncio.Event()

    async def serve(self, bolt: AsyncApp, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises UserError when Slack cannot be served at all."""
        await (self._over_http if self._settings.mode == "http" else self._over_socket)(bolt, stop)

    async def _over_socket(self, bolt: AsyncApp, stop: asyncio.Event) -> None:
        """Slack's client reconnects by itself. One that does not is thrown away: it would try a used ticket for ever,
        and close what another one opens."""
        newer: Socket | None = None
        while not stop.is_set():
            socket = newer or await self.once_there(lambda: self._connected(bolt), stop)
            if socket is None:
                return
            newer = None
            try:
                self._health.ponged_at = partial(getattr, socket.client, "last_ping_pong_time")
                self._health.reached()
                self.ready.set()
                newer = await self._watch_socket(socket, bolt, stop)
            finally:
                if newer is None:
                    self._health.lost()
                await _closed(socket)
        if newer is not None:
            await _closed(newer)

    async def _connected(self, bolt: AsyncApp) -> Socket:
        """Over which Slack has said hello, so that it brings what comes from now on. Raises SlackGone, TimeoutError
        where Slack gives a ticket that opens nothing, UserError."""
        # Given explicitly: else the socket would be opened with the bot's token, and at the wrong place.
        client = web_client(self._settings.app_token, self._settings.api_url)
        # Asked for here: Slack's own client would try a wrong token again for ever.
        answer = await self._slack.call(client.apps_connections_open, app_token=self._settings.app_token)
        socket = Socket(bolt, self._settings.app_token, web_client=client, ping_interval=PING_S)
        socket.client.wss_uri = str(answer["url"])
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._slack.call(socket.connect_async)
                await socket.greeted.wait()
        except BaseException as error:
            await _closed(socket)
            if isinstance(error, TimeoutError) and self._health.silent_s > GIVE_UP_AFTER_S:
                raise UserError(
                    f"Slack is there, and its socket has been gone for {self._health.silent_s:.0f} s and does not come "
                    "back, so this bot ends for its supervisor to start it again. Accepted questions are kept.",
                    status=COULD_NOT_JUDGE,
                ) from None
            raise
        return socket

    async def _watch_socket(self, socket: Socket, bolt: AsyncApp, stop: asyncio.Event) -> Socket | None:
        """Until told to stop, or until this one does not come back; or what to go on with, where this one brings
        nothing."""
        tried_at = -IDLE_AGAIN_S
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), CONNECTED_EVERY_S)
            if not await socket.client.is_connected():
                self._health.lost()
                if self._health.silent_s > RECONNECT_AFTER_S:
                    log.warning("Slack's socket has been gone for %.0f s; connecting anew", self._health.silent_s)
                    return None
                continue
            self._health.reached()
            if time.monotonic() > max(socket.heard_at + IDLE_S, tried_at + IDLE_AGAIN_S):
                tried_at = time.monotonic()
                if newer := await self._newer(bolt, stop):
                    log.info("Slack's socket has brought nothing for %.0f s and is replaced", IDLE_S)
                    await socket.settled()
                    return newer
        await socket.settled()
        return None

    async def _newer(self, bolt: AsyncApp, stop: asyncio.Event) -> Socket | None:
        """Opened while the one before is open, so that nothing is lost; None where that cannot be now."""
        try:
            async with asyncio.timeout(CONNECT_S):
                return await self._unless_stopped(lambda: self._connected(bolt), stop)
        except (UserError, TimeoutError) as error:
            why = error if str(error) else "it takes too long"
            log.warning("Slack's socket has brought nothing for a while, and no other one can be opened: %s", why)
            return None

    async def once_there(self, ask: Callable[[], Awaitable[T]], stop: asyncio.Event) -> T | None:
        """What Slack answers once it is there, None when told to stop before. Raises UserError as `ask` does."""
        delays = itertools.chain(AGAIN_S, itertools.repeat(AGAIN_S[-1]))
        while not stop.is_set():
            wait_s = next(delays)
            try:
                return await self._unless_stopped(ask, stop)
            except SlackGone as gone:
                log.warning("%s Tried again until it is there.", gone.sentence)
                self._health.no_start_helps()
                wait_s = max(wait_s, gone.retry_after_s)
            except TimeoutError:
                log.warning("Slack is there, and its socket does not open. Tried again.")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait_s)
        return None

    async def _unless_stopped(self, ask: Callable[[], Awaitable[T]], stop: asyncio.Event) -> T | None:
        """What is answered, None when told to stop before. Raises as `ask` does."""
        asking, stopping = asyncio.ensure_future(ask()), asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({asking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return asking.result() if asking.done() else None
        finally:
            for one in (asking, stopping):
                one.cancel()
            await asyncio.gather(asking, stopping, return_exceptions=True)

    async def _over_http(self, bolt: AsyncApp, stop: asyncio.Event) -> None:
        async def deliver(request: web.Request) -> web.Response:
            return await to_aiohttp_response(await bolt.async_dispatch(await _read(request)))

        async def health(_: web.Request) -> web.Response:
            return web.Response(text="ok")

        server = web.Application(client_max_size=BODY_MAX, middlewares=[_well_formed])
        server.add_routes([web.post(PATH, deliver), web.get("/healthz", health)])
        runner = web.AppRunner(server, access_log=None)
        await runner.setup()
        host, port = self._settings.listen
        try:
            try:
                await web.TCPSite(runner, host, port).start()
            except OSError as error:
                raise UserError(
                    f"The bot cannot listen on {host}:{port} ({error.strerror or error}). Set CALICO_WHY_SLACK_LISTEN "
                    "to another host:port.",
                    status=COULD_NOT_JUDGE,
                ) from error
            self.address = runner.addresses[0][:2]
            self._health.reached()
            self.ready.set()
            await stop.wait()
        finally:
            self._health.lost()
            await runner.cleanup()


class Socket(AsyncSocketModeHandler):
    """A connection of Socket Mode. heard_at: when it brought something last, or was made. greeted: Slack has said
    hello."""

    def __init__(self, bolt: AsyncApp, app_token: str, *, web_client: AsyncWebClient, ping_interval: float) -> None:
        super().__init__(bolt, app_token, web_client=web_client, ping_interval=ping_interval)
        self.heard_at = time.monotonic()
        self.greeted, self._acknowledged = asyncio.Event(), asyncio.Event()
        self._acknowledged.set()
        self._brought = 0
        self.client.message_listeners.append(self._listen)

    async def _listen(self, _client: object, message: Body, _raw: str | None) -> None:
        if message.get("type") == "hello":
            self.greeted.set()

    async def handle(self, client: AsyncBaseSocketModeClient, req: SocketModeRequest) -> None:
        self.heard_at = time.monotonic()
        self._brought += 1
        self._acknowledged.clear()
        try:
            await super().handle(client, req)  # type: ignore[arg-type]  # Bolt narrows what its base takes
        finally:
            self._brought -= 1
            if not self._brought:
                self._acknowledged.set()

    async def settled(self) -> None:
        """What it brought is acknowledged, or it is too late for that."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._acknowledged.wait(), SLACK_WAITS_S)


async def _closed(socket: Socket) -> None:
    """A socket that is dead already must not hold anybody up who wants to close it."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(socket.close_async(), CLOSED_IN_S)  # type: ignore[no-untyped-call]  # Bolt's


class Acknowledging(AsyncApp):
    """Bolt, which tells how long each delivery waited for its acknowledgement, over either way."""

    def __init__(self, acknowledged: Callable[[str, int, float], None], **bolt: Any) -> None:
        super().__init__(**bolt)
        self._told = acknowledged

    async def async_dispatch(self, req: AsyncBoltRequest) -> BoltResponse:
        began = time.monotonic()
        response = await super().async_dispatch(req)
        self._told(_delivery(req.body), response.status, time.monotonic() - began)
        return response


async def _read(request: web.Request) -> AsyncBoltRequest:
    """For Bolt, which takes the word "payload" in a command, or in a pod's name, for the field that carries a click,
    and then finds nothing at all."""
    read = await to_bolt_request(request)
    if not read.body and read.raw_body:
        form = dict(parse_qsl(read.raw_body, keep_blank_values=True))
        # The mode by which it takes what was parsed; the signature is checked over what was sent, as ever.
        parsed = AsyncBoltRequest(body=form, mode="socket_mode")
        read.body, read.context = parsed.body, parsed.context
    return read


@web.middleware
async def _well_formed(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
    """Headers that Slack would never send end here; further in they would raise, and anybody could fill the log."""
    if request.path == PATH and not (
        _TIMESTAMP.fullmatch(request.headers.get("X-Slack-Request-Timestamp", ""))
        and _SIGNATURE.fullmatch(request.headers.get("X-Slack-Signature", ""))
    ):
        return web.Response(status=401)
    return await handler(request)


def _delivery(body: Body) -> str:
    return "command" if body.get("command") else _DELIVERIES.get(str(body.get("type")), "other")
