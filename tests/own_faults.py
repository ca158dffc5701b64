"""A bot and fixers as they are started in a cluster, between a Slack and an API server that can be taken away; without
it their own faults would be tried one function at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from fixes.store import FixStore
from lab.apiserver import ApiServer, Store, User
from lab.apiserver.calico_definitions import install
from lab.apiserver.errors import ApiError
from lab.apiserver.requests import Target
from lab.drawing import invented
from lab.objects import CALICO_GROUP, stored
from lab.sketch import Sketch
from lab.slack import LocalSlack
from tests import deployed
from tests.deployed import ADMINISTRATOR, BOT, CLUSTER_FIXER
from tests.fix_cluster import CRDS, NAMESPACE, FixCluster
from tests.programs import Program, Programs
from tests.test_bot_slack import ROOM, Room

STARTED_S = 30.0
TOGETHER_S = 40.0


class Wire:
    """What carries TCP to a server, and how it stops to. attempts: connections that came since it was looked at."""

    def __init__(self, port: int) -> None:
        """port: the server's, on this machine."""
        self._target = port
        self._audible = asyncio.Event()
        self._audible.set()
        self._server: asyncio.Server | None = None
        self._carried: set[asyncio.Task[None]] = set()
        self._resets = False
        self.port = 0
        self.attempts = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def serving(self) -> bool:
        return self._server is not None and self._server.is_serving()

    async def refuse(self) -> None:
        """Connections end and none is taken, as of a server that was killed."""
        assert self._server is not None
        self._server.close()
        self._end_all()
        await asyncio.sleep(0)

    def reset(self) -> None:
        """The same, but that what comes is counted: each is taken, and ended."""
        self._resets = True
        self._end_all()

    def hush(self) -> None:
        """Nothing arrives any more in either direction, and nobody is told: packets are dropped."""
        self._audible.clear()

    def forget(self) -> None:
        """Nothing arrives over the connections that there are, ever; new ones are good. So a firewall forgets."""
        for one in self._carried:
            one.cancel()

    async def mend(self) -> None:
        self._resets = False
        self._audible.set()
        if not self.serving:
            await self.start()

    async def close(self) -> None:
        self._end_all()
        if self._server is not None:
            self._server.close()

    def _end_all(self) -> None:
        for one in self._carried:
            one.cancel("end")

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.attempts += 1
        if self._resets:
            writer.transport.abort()
            return
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        both = asyncio.ensure_future(self._both(reader, there_writer, there_reader, writer))
        self._carried.add(both)
        try:
            await both
        except asyncio.CancelledError as cancelled:
            there_writer.transport.abort()
            if "end" not in cancelled.args:
                await asyncio.Event().wait()  # open, and silent, until this process ends
        finally:
            self._carried.discard(both)
            writer.transport.abort()
            there_writer.transport.abort()

    async def _both(self, *ends: Any) -> None:
        here, to_there, there, to_here = ends
        done, late = await asyncio.wait(
            {asyncio.ensure_future(self._pump(here, to_there)), asyncio.ensure_future(self._pump(there, to_here))},
            return_when=asyncio.FIRST_COMPLETED,
        )
        for one in (*done, *late):
            one.cancel()
        await asyncio.gather(*done, *late, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._audible.wait()
            writer.write(data)
            await writer.drain()


@dataclass
class World:
    """Slack, and an API server that knows three nodes and six pods, behind a wire. room: what people see and do.
    written: user and resource of each write, oldest first; where it was only tried, there is none."""

    slack: LocalSlack
    cluster: FixCluster
    wire: Wire
    room: Room
    programs: Programs
    directory: Path
    written: list[tuple[str, str]]
    running: list[Program] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def bot(self, name: str = "bot", **environment: str) -> AsyncGenerator[Program]:
        """`calico-why bot`, once Slack reaches it. It is told to stop at the end, and has to end well."""
        program = self.started(name, **environment)
        known = self.slack.connections
        await self.slack.wait_for(lambda: self.slack.connections > known, timeout=STARTED_S)
        yield program
        program.signal(signal.SIGTERM)
        status = await asyncio.wait_for(program.ended(), TOGETHER_S)
        assert status == 0, program.text

    def started(self, name: str = "bot", **environment: str) -> Program:
        """`calico-why bot`, which has not connected yet. name: of its state and its log."""
        own = {"KUBECONFIG": self.cluster.kubeconfig(BOT), "CALICO_WHY_CLUSTER": "test"}
        variables = bot_environment(self.slack, self.directory / name) | own | environment
        return self._start(["bot"], variables, name)

    def fixer(self, name: str = "fixer") -> Program:
        """`calico-why fixer --cluster`"""
        variables = {
            **os.environ,
            "KUBECONFIG": self.cluster.kubeconfig(CLUSTER_FIXER),
            "CALICO_WHY_CLUSTER": "test",
            "CALICO_WHY_APPROVERS": "U0BO,U0ANA",
        }
        return self._start(["fixer", "--cluster"], variables, name)

    def _start(self, words: list[str], variables: dict[str, str], name: str) -> Program:
        program = self.programs.start(words, variables, self.directory / f"{name}.log")
        self.running.append(program)
        return program

    @contextlib.contextmanager
    def refusing(self, status: int, retry_after_s: int = 0) -> Any:
        """The API server answers everything with this status. What is given counts the requests."""
        counted: list[str] = []
        resource = self.cluster.server._resource

        async def refused(request: web.Request, user: User, target: Target) -> web.StreamResponse:
            counted.append(f"{request.method} {request.path_qs}")
            details = {"retryAfterSeconds": retry_after_s} if retry_after_s else {}
            raise ApiError(status, "ServiceUnavailable", "the server is currently unable to handle it", details)

        self.cluster.server._resource = refused  # type: ignore[method-assign]
        try:
            yield counted
        finally:
            self.cluster.server._resource = resource  # type: ignore[method-assign]


def bot_environment(slack: LocalSlack, state: Path) -> dict[str, str]:
    """Of a bot in this Slack; the cluster comes besides."""
    return {
        **os.environ,
        "CALICO_WHY_STATE": str(state),
        "CALICO_WHY_APPROVERS": "S0NETOPS",
        "CALICO_WHY_DEVELOPMENT": "1",  # it is the local Slack
        "SLACK_API_URL": slack.base_url,
        "SLACK_BOT_TOKEN": slack.bot_token,
        "SLACK_APP_TOKEN": slack.app_token,
        "SLACK_SIGNING_SECRET": slack.signing_secret,
    }


@contextlib.asynccontextmanager
async def world(directory: Path, programs: Programs) -> AsyncGenerator[World]:
    objects = Store()
    install(objects, CALICO_GROUP)
    for path in CRDS:
        objects.create(yaml.safe_load(path.read_text()))
    for entry in (
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        *deployed.objects(),
        *(stored(one, CALICO_GROUP) for one in invented(Sketch(3, 2))),
    ):
        if entry["kind"] != "Namespace" or entry["metadata"]["name"] not in names_of(objects, "namespaces"):
            objects.create(entry)
    server = ApiServer(objects, tokens={})
    written: list[tuple[str, str]] = []
    resource = server._resource

    async def noted(request: web.Request, user: User, target: Target) -> web.StreamResponse:
        answer = await resource(request, user, target)
        if request.method != "GET" and "dryRun" not in request.query:
            written.append((user.name, target.plural))
        return answer

    server._resource = noted  # type: ignore[method-assign]
    url = await server.start()
    wire = Wire(int(url.rpartition(":")[2]))
    await wire.start()
    cluster = FixCluster(server, objects, f"http://127.0.0.1:{wire.port}", directory)
    direct = FixCluster(server, objects, url, directory)
    try:
        async with LocalSlack() as slack, direct.store(ADMINISTRATOR) as store:
            room = Room("socket", slack, cluster, store, directory / "bot")
            made = World(slack, cluster, wire, room, programs, directory, written)
            try:
                yield made
            finally:
                for program in made.running:
                    program.signal(signal.SIGKILL)
    finally:
        await wire.close()
        await server.stop()


async def until(found: Callable[[], Any], seconds: float = TOGETHER_S) -> Any:
    """What is there once it is; of what tells nobody when it changes."""
    async with asyncio.timeout(seconds):
        while not (value := found()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        return value


def names_of(objects: Store, plural: str) -> set[str]:
    return {one["metadata"]["name"] for one in objects.list(plural)}


def texts(room: Room, thread: str | None = None, viewer: str | None = None) -> list[str]:
    """All that is said in the incident's channel, or in a thread of it."""
    from tests.test_bot_slack import _all_text

    return [_all_text(one) for one in room.slack.messages(ROOM, thread, viewer=viewer)]


async def phase_of(store: FixStore, name: str) -> str:
    return str((await store.get(name)).status.phase)
