"""A whole Slack on a loopback port; without it the bot could be tried only in somebody's real workspace."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Self, TypeVar
from urllib.parse import urlsplit

from aiohttp import web

from lab.slack.api import Api
from lab.slack.browser import Browser
from lab.slack.config import Config, load_config, load_manifest
from lab.slack.delivery import Deliverer
from lab.slack.faults import Faults
from lab.slack.loopback import own_origin_only
from lab.slack.methods import FILE_BYTES, Methods
from lab.slack.people import People
from lab.slack.records import Call, Delivery
from lab.slack.workspace import Clock, Json, Workspace

T = TypeVar("T")
HOST = "127.0.0.1"
GOODBYE_SECONDS = 1.0


class LocalSlack:
    """Slack's Web API, Socket Mode, signed HTTP and a page to sit in, on 127.0.0.1, in memory.

    port: 0 takes a free one. request_url: deliver by signed HTTP to this URL instead of Socket Mode; may be set later.
    Methods take users and channels by name or id, and raise LookupError for unknown ones. `async with` starts and ends
    it; entering raises OSError when the port is taken.
    """

    def __init__(
        self, port: int = 0, config: Config | None = None, request_url: str = "", clock: Clock | None = None
    ) -> None:
        self._port = port
        self._config = config or load_config()
        self.clock = clock or Clock()
        self.workspace = Workspace(self._config, load_manifest(), self.clock)
        self.faults = Faults(self.clock)
        self._deliverer = Deliverer(self.workspace, self.faults, request_url or self._config.request_url)
        self._methods = Methods(self.workspace, self._deliverer.new_ticket)
        self._api = Api(self.workspace, self.faults, self._methods)
        self._people = People(self.workspace, self._deliverer, self._api)
        self._browser = Browser(self.workspace, self.faults, self._people, self._deliverer, self._api)
        self._runner: web.AppRunner | None = None

    # -- running

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=FILE_BYTES + 2**16, middlewares=[own_origin_only])
        app.add_routes([*self._api.routes(), *self._deliverer.routes(), *self._browser.routes()])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=GOODBYE_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, self._port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self.workspace.origin = f"http://{HOST}:{runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        self.workspace.closing.set()
        self.workspace.changed()
        await self._deliverer.close()
        await self._runner.cleanup()

    # -- what a bot must know

    @property
    def base_url(self) -> str:
        return f"{self.workspace.origin}/api/"

    @property
    def page_url(self) -> str:
        return f"{self.workspace.origin}/"

    @property
    def bot_token(self) -> str:
        return self._config.bot_token

    @property
    def app_token(self) -> str:
        return self._config.app_token

    @property
    def signing_secret(self) -> str:
        return self._config.signing_secret

    @property
    def request_url(self) -> str:
        return self._deliverer.request_url

    @request_url.setter
    def request_url(self, url: str) -> None:
        self._deliverer.request_url = url

    # -- looking

    @property
    def calls(self) -> list[Call]:
        """Every call of the Web API and of a response_url, oldest first."""
        return self._api.calls

    @property
    def deliveries(self) -> list[Delivery]:
        """Everything told to the bot, oldest first."""
        return self._deliverer.records

    @property
    def connections(self) -> int:
        """Open Socket Mode connections."""
        return self._deliverer.connections

    def user_id(self, name: str) -> str:
        return self.workspace.user(name).id

    def channel_id(self, name: str) -> str:
        return self.workspace.channel(name).id

    def group_id(self, handle: str) -> str:
        return self.workspace.group(handle).id

    def messages(self, channel: str, thread_ts: str | None = None, viewer: str | None = None) -> list[Json]:
        """Messages as Slack's API writes them, oldest first: the top level of a channel, or the replies of one thread.

        viewer: also what only this user sees.
        """
        where = self.workspace.channel(channel).id
        eyes = ("", self.workspace.user(viewer).id) if viewer else ("",)
        return [
            self.workspace.message_shape(message)
            for message in self.workspace.in_channel(where)
            if message.thread_ts == (thread_ts or "") and message.viewer in eyes
        ]

    async def wait_for(self, predicate: Callable[[], T], timeout: float = 10) -> T:
        """What `predicate` returns once that is true; it is asked again after every change, for `timeout` seconds.

        Raises TimeoutError that shows every message and the last calls.
        """
        watch = self.workspace.watch()
        try:
            async with asyncio.timeout(timeout):
                while True:
                    watch.clear()
                    if found := predicate():
                        return found
                    await watch.wait()
        except TimeoutError:
            raise TimeoutError(f"not within {timeout} s; {self._dump()}") from None
        finally:
            self.workspace.unwatch(watch)

    def _dump(self) -> str:
        said = [
            f"#{channel.name} {m.ts} {m.thread_ts and '  in ' + m.thread_ts} {m.user}: {m.text} {json.dumps(m.blocks)}"
            for channel in self._config.channels
            for m in self.workspace.in_channel(channel.id)
        ]
        asked = [f"{call.method}: {'ok' if call.ok else call.error or call.status}" for call in self.calls[-20:]]
        told = [f"{delivery.kind} {delivery.what}: {delivery.result}" for delivery in self.deliveries[-20:]]
        return "\n".join(["messages:", *said, "last deliveries:", *told, "last calls:", *asked])

    # -- what people do

    async def say(self, user: str, channel: str, text: str, thread_ts: str = "") -> Delivery | None:
        """A /command, an @mention of the bot or a plain message, as the text has it; None when the bot is not told."""
        return await self._people.say(user, channel, text, thread_ts)

    async def slash(self, user: str, channel: str, text: str, thread_ts: str = "") -> Delivery:
        """`text` begins with the command. Refused in a thread, as Slack does."""
        return await self._people.slash(user, channel, text, thread_ts)

    async def mention(self, user: str, channel: str, text: str, thread_ts: str = "") -> Delivery:
        return await self._people.mention(user, channel, text, thread_ts)

    async def click(self, user: str, channel: str, ts: str, action_id: str, value: str | None = None) -> Delivery:
        """Raises LookupError when the message has no such button, or this user does not see it."""
        return await self._people.click(user, channel, ts, action_id, value)

    async def submit_view(self, user: str, view_id: str, values: Json) -> Delivery:
        """values: as Slack's own view.state.values, or {block_id: what was entered or the option's value}."""
        return await self._people.submit_view(user, view_id, values)

    async def disconnect(self, reason: str = "refresh_requested") -> None:
        """Asks every Socket Mode connection to come back on a new one, as Slack does every few hours."""
        await self._deliverer.disconnect(reason)

    async def warn(self) -> None:
        """Tells every Socket Mode connection that it will be closed soon."""
        await self._deliverer.warn()

    def deafen(self) -> None:
        """The Socket Mode connections that there are bring nothing any more, and answer pings all the same."""
        self._deliverer.deafen()

    async def go_away(self) -> None:
        """Ends all connections and takes none, until it comes back at the same address."""
        assert self._runner is not None
        for site in list(self._runner.sites):
            await site.stop()
        assert self._runner.server is not None
        for connection in self._runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()

    async def come_back(self) -> None:
        assert self._runner is not None
        port = urlsplit(self.workspace.origin).port
        await web.TCPSite(self._runner, HOST, port, reuse_address=True).start()
