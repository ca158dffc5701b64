"""Brings what people do to the bot, by Socket Mode or signed HTTP; without it the bot would never hear a question."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import random
import secrets
import urllib.parse
import uuid
import zlib
from collections.abc import Awaitable
from typing import Any, Literal

import aiohttp
from aiohttp import web

from lab.slack.faults import Faults
from lab.slack.records import Delivery
from lab.slack.workspace import Json, Workspace

Kind = Literal["slash_commands", "interactive", "events_api"]

ACK_SECONDS = 3.0
RETRY_AFTER_SECONDS = (0.0, 60.0, 300.0)  # an event not acknowledged comes again: at once, a minute and five later
PING_SECONDS = 10.0
CONNECTIONS = 10
NO_RETRY = "X-Slack-No-Retry"


class Deliverer:
    """Socket Mode connections and the HTTP way out. `records` is every delivery in order.

    request_url: deliver there by signed HTTP; empty for Socket Mode.
    """

    def __init__(self, workspace: Workspace, faults: Faults, request_url: str) -> None:
        self._space, self._faults, self.request_url = workspace, faults, request_url
        self.records: list[Delivery] = []
        self._tickets: set[str] = set()
        self._sockets: list[web.WebSocketResponse] = []
        self._deaf: set[web.WebSocketResponse] = set()
        self._acks: dict[str, asyncio.Future[Any]] = {}
        self._later: set[asyncio.Task[None]] = set()
        self._http: aiohttp.ClientSession | None = None

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/link/{ticket}", self._link)]

    @property
    def connections(self) -> int:
        return len(self._sockets)

    async def close(self) -> None:
        for task in self._later:
            task.cancel()
        await asyncio.gather(*self._later, return_exceptions=True)
        for socket in list(self._sockets):
            await socket.close()
        if self._http is not None:
            await self._http.close()

    # -- Socket Mode

    def new_ticket(self) -> str:
        ticket = secrets.token_urlsafe(12)
        self._tickets.add(ticket)
        return ticket

    async def warn(self) -> None:
        """Tells every connection that it will be closed, as Slack does some ten seconds before it is."""
        for socket in list(self._sockets):
            with contextlib.suppress(ConnectionError):
                await socket.send_json({"type": "disconnect", "reason": "warning", "debug_info": {"host": "local"}})

    async def disconnect(self, reason: str = "refresh_requested") -> None:
        """Asks every connection to come back on a new one, then closes it.

        reason: refresh_requested | link_disabled
        """
        for socket in list(self._sockets):
            self._forget(socket)
            with contextlib.suppress(ConnectionError):
                await socket.send_json({"type": "disconnect", "reason": reason, "debug_info": {"host": "local"}})
            await socket.close()

    def deafen(self) -> None:
        """From now on the connections that there are bring nothing; their pings are answered."""
        self._deaf.update(self._sockets)

    async def _link(self, request: web.Request) -> web.StreamResponse:
        ticket = request.match_info["ticket"]
        if ticket not in self._tickets or len(self._sockets) >= CONNECTIONS:
            return web.Response(status=403, text="this ticket was used, never given out, or is one too many")
        self._tickets.discard(ticket)
        if self._faults.take_refuse_link():
            return web.Response(status=503, text="not now")
        socket = web.WebSocketResponse(heartbeat=PING_SECONDS, autoping=False)
        await socket.prepare(request)
        hello = {
            "type": "hello",
            "num_connections": len(self._sockets) + 1,
            "connection_info": {"app_id": self._space.config.bot.app_id},
            "debug_info": {"host": "local", "approximate_connection_time": 18060},
        }
        await socket.send_json(hello)
        self._sockets.append(socket)
        self._space.changed()
        try:
            async for message in socket:
                if not self._faults.audible.is_set():
                    continue
                if message.type is aiohttp.WSMsgType.PING:
                    await socket.pong(message.data)
                elif message.type is aiohttp.WSMsgType.TEXT:
                    self._acknowledge(message.data)
        finally:
            self._forget(socket)
        return socket

    def _forget(self, socket: web.WebSocketResponse) -> None:
        self._deaf.discard(socket)
        if socket in self._sockets:
            self._sockets.remove(socket)
            self._space.changed()

    def _acknowledge(self, frame: str) -> None:
        try:
            ack = json.loads(frame)
        except ValueError:
            return  # slack_sdk sends plain-text pings of its own
        future = self._acks.get(ack.get("envelope_id", "")) if isinstance(ack, dict) else None
        if future is not None and not future.done() and not self._ack_lost():
            future.set_result(ack.get("payload"))

    def _ack_lost(self) -> bool:
        lost = self._faults.take_drop_ack()
        if lost:
            self._space.changed()
        return lost

    # -- deliveries

    async def deliver(self, kind: Kind, payload: Json, what: str, form: Json | None = None) -> Delivery:
        """Tells the bot once and waits for its acknowledgement; an event not acknowledged comes again on its own.

        what: one line for people. form: the fields of the HTTP body, where that is not `payload=<JSON>`.
        """
        delivery, may_retry = await self._once(kind, payload, what, form, retry=0, reason="")
        if kind == "events_api" and delivery.result != "ok" and may_retry:
            self._keep(self._again(payload, what))
        elif delivery.result == "ok" and self._faults.take_deliver_twice():
            retry = 1 if kind == "events_api" else 0  # of the others Slack itself repeats none
            await self._once(kind, payload, what, form, retry=retry, reason="timeout" if retry else "")
        return delivery

    def refuse(self, kind: Kind, what: str) -> Delivery:
        """Keeps on record what Slack itself answered, so that the bot was not told."""
        delivery = Delivery(self._space.clock.now(), kind, what, "", result="refused")
        self.records.append(delivery)
        self._space.changed()
        return delivery

    async def _again(self, payload: Json, what: str) -> None:
        begun = self._space.clock.now()
        for retry, seconds in enumerate(RETRY_AFTER_SECONDS, start=1):
            await self._space.clock.sleep_until(begun + seconds)
            delivery, may_retry = await self._once("events_api", payload, what, None, retry=retry, reason="timeout")
            if delivery.result == "ok" or not may_retry:
                return

    def _keep(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _once(
        self, kind: Kind, payload: Json, what: str, form: Json | None, *, retry: int, reason: str
    ) -> tuple[Delivery, bool]:
        """The delivery, and whether the bot leaves it open to be told again."""
        delivery = Delivery(self._space.clock.now(), kind, what, str(uuid.uuid4()), retry)
        self.records.append(delivery)
        self._space.changed()
        loop = asyncio.get_running_loop()
        begun, may_retry = loop.time(), True
        if self.request_url:
            told: Awaitable[Any] = self._by_http(delivery, kind, payload, form, retry, reason)
        else:
            told = self._by_socket(delivery, kind, payload, retry, reason)
        try:
            delivery.body, may_retry = await self._within_ack_time(told)
            delivery.ack_ms, delivery.result = (loop.time() - begun) * 1000, "ok"
        except TimeoutError:
            delivery.result = "operation_timeout"
        except _NotTaken as refused:
            delivery.result, may_retry = "dispatch_failed", refused.may_retry
        finally:
            self._acks.pop(delivery.envelope_id, None)
            self._space.changed()
        return delivery, may_retry

    async def _within_ack_time(self, told: Awaitable[Any]) -> Any:
        """Raises TimeoutError after 3 s by Slack's clock, which may be pushed."""
        work = asyncio.ensure_future(told)
        late = asyncio.ensure_future(self._space.clock.sleep_until(self._space.clock.now() + ACK_SECONDS))
        try:
            await asyncio.wait({work, late}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise TimeoutError
            return work.result()
        finally:
            for task in (work, late):
                task.cancel()
            await asyncio.gather(work, late, return_exceptions=True)

    async def _by_socket(
        self, delivery: Delivery, kind: Kind, payload: Json, retry: int, reason: str
    ) -> tuple[Any, bool]:
        envelope: Json = {
            "envelope_id": delivery.envelope_id,
            "type": kind,
            "payload": payload,
            "accepts_response_payload": kind == "slash_commands" or payload.get("type") == "view_submission",
        }
        if kind == "events_api":
            envelope |= {"retry_attempt": retry, "retry_reason": reason}
        if not self._sockets:
            raise _NotTaken
        ack = self._acks[delivery.envelope_id] = asyncio.get_running_loop().create_future()
        try:
            socket = self._connection(payload, retry)
            if self._faults.audible.is_set() and socket not in self._deaf:
                await socket.send_json(envelope)
        except ConnectionError:
            raise _NotTaken from None
        return await ack, True

    def _connection(self, payload: Json, retry: int) -> web.WebSocketResponse:
        """Any. An event that comes again comes over another one, where there are several: Slack may, so a bot has to
        bear it."""
        event = str(payload.get("event_id", ""))
        if not event:
            return random.choice(self._sockets)
        return self._sockets[(zlib.crc32(event.encode()) + retry) % len(self._sockets)]

    async def _by_http(
        self, delivery: Delivery, kind: Kind, payload: Json, form: Json | None, retry: int, reason: str
    ) -> tuple[Any, bool]:
        if self._http is None:
            self._http = aiohttp.ClientSession(trust_env=False)
        if kind == "events_api":
            body, content_type = json.dumps(payload), "application/json"
        else:
            body = urllib.parse.urlencode(form or {"payload": json.dumps(payload)})
            content_type = "application/x-www-form-urlencoded"
        headers = {"Content-Type": content_type, **self._signed(body)}
        if retry:
            headers |= {"X-Slack-Retry-Num": str(retry), "X-Slack-Retry-Reason": f"http_{reason}"}
        try:
            async with self._http.post(
                self.request_url, data=body.encode(), headers=headers, allow_redirects=False
            ) as response:
                text = await response.text()
                if response.status != 200:
                    raise _NotTaken(may_retry=response.headers.get(NO_RETRY) != "1")
        except aiohttp.ClientError:
            raise _NotTaken from None
        if self._ack_lost():
            await asyncio.get_running_loop().create_future()  # the answer is lost: nothing comes any more
        return _read(text), True

    def _signed(self, body: str) -> dict[str, str]:
        # the bot compares this with its own clock, which nobody pushes
        timestamp = str(int(self._space.clock.now() - self._space.clock.ahead))
        secret = self._space.config.signing_secret.encode()
        digest = hmac.new(secret, f"v0:{timestamp}:{body}".encode(), hashlib.sha256).hexdigest()
        return {"X-Slack-Request-Timestamp": timestamp, "X-Slack-Signature": f"v0={digest}"}


class _NotTaken(Exception):
    """Nobody took the delivery."""

    def __init__(self, may_retry: bool = True) -> None:
        super().__init__()
        self.may_retry = may_retry


def _read(text: str) -> Any:
    """What an HTTP acknowledgement carries: JSON, words, or nothing."""
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text
