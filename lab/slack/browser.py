"""What the page in the browser sees and does; without it a person could not sit in the channel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from lab.slack.api import Api
from lab.slack.delivery import Deliverer
from lab.slack.faults import ANY_METHOD, Faults
from lab.slack.people import People
from lab.slack.workspace import Json, Workspace

PAGE = Path(__file__).with_name("page")
SHOWN = 60
STREAM_EVERY_SECONDS = 0.05
STREAM_ALIVE_SECONDS = 15.0
SLOW_SECONDS = 1.5
AHEAD_MOST = 366 * 24 * 3600
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
DRAWING = "image/svg+xml"
IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", DRAWING})
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
# It may colour itself and run nothing, also when it is opened by itself.
DRAWN = HEADERS | {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}


class Browser:
    """Routes of the page: its files, one stream of snapshots, and what is done there."""

    def __init__(self, workspace: Workspace, faults: Faults, people: People, deliverer: Deliverer, api: Api) -> None:
        self._space, self._faults = workspace, faults
        self._people, self._deliverer, self._api = people, deliverer, api
        self._doing: set[asyncio.Task[Any]] = set()

    def routes(self) -> list[web.RouteDef]:
        deeds = {
            "say": self._say,
            "click": self._click,
            "submit": self._submit,
            "close": self._close,
            "clock": self._clock,
            "fault": self._fault,
        }
        return [
            web.get("/", self._index),
            web.get("/page/stream", self._stream),
            web.get("/page/file/{id}", self._file),
            web.get("/page/{name}", self._page_file),
            *(web.post(f"/page/{name}", self._taking(deed)) for name, deed in deeds.items()),
        ]

    # -- files

    async def _index(self, request: web.Request) -> web.Response:
        return _page_file("index.html")

    async def _page_file(self, request: web.Request) -> web.Response:
        return _page_file(request.match_info["name"])

    async def _file(self, request: web.Request) -> web.Response:
        """The bytes of an uploaded file; anything but an image is only ever downloaded."""
        upload = self._space.uploads.get(request.match_info["id"])
        if upload is None or upload.data is None:
            raise web.HTTPNotFound(headers=HEADERS)
        if upload.mimetype in IMAGES:
            headers = DRAWN if upload.mimetype == DRAWING else HEADERS
            return web.Response(body=upload.data, content_type=upload.mimetype, headers=headers)
        headers = HEADERS | {"Content-Disposition": "attachment"}
        return web.Response(body=upload.data, content_type="application/octet-stream", headers=headers)

    # -- watching

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        try:
            me = self._space.user(request.query.get("user") or self._space.config.users[0].id).id
        except LookupError as error:
            raise web.HTTPNotFound(text=str(error), headers=HEADERS) from None
        response = web.StreamResponse(headers=HEADERS | {"Content-Type": "text/event-stream"})
        await response.prepare(request)
        changed = self._space.watch()
        try:
            while not self._space.closing.is_set():
                changed.clear()
                await response.write(f"data: {json.dumps(self.snapshot(me))}\n\n".encode())
                await asyncio.sleep(STREAM_EVERY_SECONDS)
                while not await _within(STREAM_ALIVE_SECONDS, changed):
                    await response.write(b": still here\n\n")  # else nobody would notice a browser that left
        except ConnectionError:
            return response
        finally:
            self._space.unwatch(changed)
        return response

    def snapshot(self, me: str) -> Json:
        """Everything one user may see."""
        space, config = self._space, self._space.config
        bot = config.bot
        seen = [channel for channel in config.channels if me in channel.members or not channel.private]
        mine = {channel.id for channel in seen if me in channel.members}
        messages: dict[str, list[Json]] = {}
        for channel in mine:
            visible = (m for m in space.in_channel(channel) if m.viewer in ("", me))
            messages[channel] = [space.message_shape(message) for message in visible]
        return {
            "revision": space.revision,
            "now": space.clock.now(),
            "ahead": space.clock.ahead,
            "team": {"id": config.team.id, "name": config.team.name, "domain": config.team.domain},
            "bot": {"id": bot.bot_id, "user_id": bot.user_id, "name": bot.name},
            "me": me,
            "users": [
                {"id": user.id, "name": user.name, "real_name": user.real_name, "stranger": bool(user.team_id)}
                for user in config.users
            ],
            "groups": [{"id": group.id, "handle": group.handle, "name": group.name} for group in config.groups],
            "channels": [
                {
                    "id": channel.id,
                    "name": channel.name,
                    "topic": channel.topic,
                    "private": channel.private,
                    "has_bot": channel.has_bot,
                    "member": channel.id in mine,
                }
                for channel in seen
            ],
            "messages": messages,
            "views": [space.view_shape(view) | {"errors": view.errors} for view in space.open_views(me)],
            "deliveries": [delivery.shape() for delivery in self._deliverer.records[-SHOWN:]],
            "calls": [call.shape() for call in self._api.calls[-SHOWN:]],
            "faults": self._faults.shape(),
        }

    # -- doing

    def _taking(self, deed: Callable[[Json], Awaitable[Any]]) -> Callable[[web.Request], Awaitable[web.Response]]:
        """A handler that runs `deed` to its end even when the browser leaves, and answers what went wrong."""

        async def handle(request: web.Request) -> web.Response:
            # no other site can send this content type without asking first
            if request.content_type != "application/json":
                return _answer("send application/json", 415)
            try:
                body = await request.json()
            except ValueError:
                return _answer("this is not JSON", 400)
            if not isinstance(body, dict):
                return _answer("send a JSON object", 400)
            task = asyncio.ensure_future(deed(body))
            self._doing.add(task)
            task.add_done_callback(self._doing.discard)
            try:
                await asyncio.shield(task)
            except KeyError as error:
                return _answer(f"{error} is missing", 400)
            except (LookupError, ValueError, TypeError) as error:
                return _answer(str(error), 400)
            return _answer()

        return handle

    async def _say(self, body: Json) -> None:
        text = _string(body, "text").strip()
        if not text:
            raise ValueError("there is nothing to say")
        thread_ts = str(body.get("thread_ts") or "")
        await self._people.say(_string(body, "user"), _string(body, "channel"), text, thread_ts)

    async def _click(self, body: Json) -> None:
        value = str(body["value"]) if body.get("value") else None
        where = _string(body, "user"), _string(body, "channel"), _string(body, "ts")
        await self._people.click(*where, _string(body, "action_id"), value)

    async def _submit(self, body: Json) -> None:
        values = body.get("values") or {}
        if not isinstance(values, dict):
            raise ValueError("values must be an object")
        await self._people.submit_view(_string(body, "user"), _string(body, "view_id"), values)

    async def _close(self, body: Json) -> None:
        await self._people.close_view(_string(body, "user"), _string(body, "view_id"))

    async def _clock(self, body: Json) -> None:
        seconds = float(body["seconds"])
        if not 0 < seconds <= AHEAD_MOST:
            raise ValueError("the clock goes forward only, a year at most")
        self._space.clock.advance(seconds)
        self._space.changed()

    async def _fault(self, body: Json) -> None:
        """Optional beside `kind`: method, times, retry_after; seconds of latency, else slow is switched on or off."""
        kind, times = _string(body, "kind"), int(body.get("times", 1))
        if kind == "disconnect":
            await self._deliverer.disconnect()
        elif kind == "drop_ack":
            self._faults.drop_acks += times
        elif kind == "twice":
            self._faults.deliver_twice += times
        elif kind == "latency":
            self._faults.latency = float(body.get("seconds", 0.0 if self._faults.latency else SLOW_SECONDS))
        else:
            method = str(body.get("method") or ANY_METHOD)
            self._faults.fail(method, kind, times, int(body.get("retry_after", 1)))
        self._space.changed()


def _page_file(name: str) -> web.Response:
    """One file of the page, by its bare name."""
    path = PAGE / name
    if path.suffix not in TYPES or path.parent != PAGE or not path.is_file():
        raise web.HTTPNotFound(text="there is no such page", headers=HEADERS)
    return web.Response(body=path.read_bytes(), content_type=TYPES[path.suffix], charset="utf-8", headers=HEADERS)


def _answer(error: str = "", status: int = 200) -> web.Response:
    return web.json_response({"ok": False, "error": error} if error else {"ok": True}, status=status, headers=HEADERS)


def _string(body: Json, name: str) -> str:
    value = body[name]
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a string")
    return value


async def _within(seconds: float, event: asyncio.Event) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
