"""A small Slack app made with slack-bolt, over either transport; without it the local Slack would judge itself."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.http_retry.builtin_async_handlers import (
    AsyncConnectionErrorRetryHandler,
    AsyncRateLimitErrorRetryHandler,
    AsyncServerErrorRetryHandler,
)
from slack_sdk.web.async_client import AsyncWebClient

from lab.slack import LocalSlack

Json = dict[str, Any]
TRANSPORTS = ("socket", "http")


class SlackApp:
    """What it hears is in `commands`, `mentions` (each with the retry number), `clicks`, `submissions` and `closed`.

    Every one wakes the slack's wait_for. What it does then are `on_command`, `on_click` and `on_view`, which a test
    replaces.
    """

    def __init__(self, slack: LocalSlack) -> None:
        self.slack = slack
        self.client = AsyncWebClient(token=slack.bot_token, base_url=slack.base_url, timeout=5)
        self.client.retry_handlers = [
            AsyncConnectionErrorRetryHandler(max_retry_count=2),
            AsyncServerErrorRetryHandler(max_retry_count=2),
            AsyncRateLimitErrorRetryHandler(max_retry_count=3),
        ]
        self.commands: list[Json] = []
        self.mentions: list[tuple[Json, int]] = []
        self.clicks: list[Json] = []
        self.submissions: list[Json] = []
        self.closed: list[Json] = []
        self.on_command: Callable[[Any, Json], Awaitable[Any]] = acknowledge
        self.on_click: Callable[[Any, Json], Awaitable[Any]] = acknowledge
        self.on_view: Callable[[Any, Json], Awaitable[Any]] = acknowledge
        self.bolt = AsyncApp(client=self.client, signing_secret=slack.signing_secret)
        self.bolt.command("/calico")(self._command)
        self.bolt.event("app_mention")(self._mention)
        self.bolt.action("go")(self._click)
        self.bolt.view("form")(self._submission)
        self.bolt.view_closed("form")(self._closed)

    async def post(self, text: str = "hello", **more: Any) -> str:
        """ts of a message in #incident."""
        answer = await self.client.chat_postMessage(channel=self.slack.channel_id("incident"), text=text, **more)
        return str(answer["ts"])

    async def _command(self, ack: Any, body: Json) -> None:
        self.commands.append(body)
        self.slack.workspace.changed()
        await self.on_command(ack, body)

    async def _mention(self, body: Json, request: Any) -> None:
        self.mentions.append((body, int(request.headers.get("x-slack-retry-num", ["0"])[0])))
        self.slack.workspace.changed()

    async def _click(self, ack: Any, body: Json) -> None:
        self.clicks.append(body)
        self.slack.workspace.changed()
        await self.on_click(ack, body)

    async def _submission(self, ack: Any, body: Json) -> None:
        self.submissions.append(body)
        self.slack.workspace.changed()
        await self.on_view(ack, body)

    async def _closed(self, ack: Any, body: Json) -> None:
        self.closed.append(body)
        self.slack.workspace.changed()
        await ack()


async def acknowledge(ack: Any, body: Json) -> None:
    await ack()


def button(value: str = "v1", **more: Any) -> Json:
    """An actions block with the one button the app listens to."""
    text = {"type": "plain_text", "text": "Go"}
    return {
        "type": "actions",
        "elements": [{"type": "button", "action_id": "go", "value": value, "text": text, **more}],
    }


def form(**more: Any) -> Json:
    """A modal that asks for one line."""
    asked = {
        "type": "input",
        "block_id": "why",
        "label": {"type": "plain_text", "text": "Why"},
        "element": {"type": "plain_text_input", "action_id": "words"},
    }
    title = {"type": "plain_text", "text": "Reject"}
    return {"type": "modal", "callback_id": "form", "title": title, "submit": title, "blocks": [asked], **more}


@contextlib.asynccontextmanager
async def connected(slack: LocalSlack, transport: str, connections: int = 1) -> AsyncIterator[SlackApp]:
    """An app the local Slack reaches by `transport`; `connections`: how many Socket Mode has then, with this one."""
    app = SlackApp(slack)
    async with _by_socket(app, connections) if transport == "socket" else _by_http(app):
        yield app


@contextlib.asynccontextmanager
async def _by_socket(app: SlackApp, connections: int) -> AsyncIterator[None]:
    web_client = AsyncWebClient(token=app.slack.app_token, base_url=app.slack.base_url)
    handler = AsyncSocketModeHandler(app.bolt, app.slack.app_token, web_client=web_client)
    await handler.connect_async()  # type: ignore[no-untyped-call]
    try:
        await app.slack.wait_for(lambda: app.slack.connections == connections)
        yield
    finally:
        await handler.close_async()  # type: ignore[no-untyped-call]


@contextlib.asynccontextmanager
async def _by_http(app: SlackApp) -> AsyncIterator[None]:
    async def deliver(request: web.Request) -> web.Response:
        return await to_aiohttp_response(await app.bolt.async_dispatch(await to_bolt_request(request)))

    server = web.Application()
    server.add_routes([web.post("/slack/events", deliver)])
    runner = web.AppRunner(server, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    app.slack.request_url = f"http://127.0.0.1:{runner.addresses[0][1]}/slack/events"
    try:
        yield
    finally:
        await runner.cleanup()
