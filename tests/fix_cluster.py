"""An API server on loopback that knows FixRequests; the tests of everything that reads or writes them start from it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from fixes.store import FixStore, connect
from lab.apiserver import ApiServer, Store, User
from lab.apiserver.kubeconfig import kubeconfig
from lab.apiserver.requests import Target
from tests import deployed
from tests.deployed import ADMINISTRATOR, NAMESPACE

FIXES = Path(__file__).parents[1] / "fixes"
CRDS = [FIXES / name for name in ("fixrequest.yaml", "auditrecord.yaml")]
POLICIES = FIXES / "admission.yaml"


class Slow:
    """An API server that does not answer until `go`."""

    def __init__(self) -> None:
        self.go = asyncio.Event()


@dataclass
class FixCluster:
    """The server, its in-process store, and a kubeconfig for each user."""

    server: ApiServer
    objects: Store
    url: str
    directory: Path

    def kubeconfig(self, user: str, *, token: str = "", **rights: Any) -> str:
        """Path of a kubeconfig of this user, made known to the server, with the rights of deploy/: of an account, or of
        people. ADMINISTRATOR may everything. rights: what is else about the User. token: of who has several."""
        there = {one["metadata"]["name"] for one in self.objects.view(self.objects.resource("namespaces"))}
        place = "calico-system" if "calico-system" in there else "kube-system"
        if user == ADMINISTRATOR:
            found = User(user, grants=None)
        else:
            found = deployed.user(user, place=place) if user in deployed.ACCOUNTS else deployed.person(user)
        token = token or f"token-{user}"
        self.server.tokens[token] = dataclasses.replace(found, **rights)  # type: ignore[index]  # a dict
        path = self.directory / f"kubeconfig-{token}"
        path.write_text(kubeconfig(self.url, token, cluster="test"))
        return str(path)

    def slow(self, *, done: bool = False) -> Slow:
        """From now on nothing but watches is answered. done: writes are made, and only their answers wait."""
        slow, resource = Slow(), self.server._resource

        async def held(request: web.Request, user: User, target: Target) -> web.StreamResponse:
            verb = target.verb(request.method, request.query)
            if verb == "watch" or (done and verb in ("get", "list")):
                return await resource(request, user, target)
            answer = await resource(request, user, target) if done else None
            await slow.go.wait()
            return answer or await resource(request, user, target)

        self.server._resource = held  # type: ignore[method-assign]
        return slow

    @contextlib.asynccontextmanager
    async def store(
        self, user: str, now: Callable[[], datetime] = lambda: datetime.now(UTC), **rights: Any
    ) -> AsyncGenerator[FixStore]:
        """Of this user, as `kubeconfig` has it."""
        async with connect(self.kubeconfig(user, **rights), NAMESPACE) as store:
            store.now = now
            yield store


@contextlib.asynccontextmanager
async def fix_cluster(
    directory: Path, *, with_crd: bool = True, with_policies: bool = False
) -> AsyncGenerator[FixCluster]:
    objects = Store()
    objects.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for one in deployed.objects():
        objects.create(one)
    if with_crd:
        for path in CRDS:
            objects.create(yaml.safe_load(path.read_text()))
    if with_policies:
        for policy in yaml.safe_load_all(POLICIES.read_text()):
            objects.create(policy)
    server = ApiServer(objects, tokens={})
    try:
        yield FixCluster(server, objects, await server.start(), directory)
    finally:
        await server.stop()
