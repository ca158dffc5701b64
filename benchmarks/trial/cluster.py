"""The trial's API server: keeps each write with its writer, and lets the killer strike before and after it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from benchmarks.trial.targets import CLAIMANT, GRACE_S, NODES, ORDINAL, OWNER, Target
from fixes.limits import NAME as SWITCH
from fixes.request import GROUP, PLURAL, FixRequest, parse
from lab.apiserver import ApiError, ApiServer, Event, Store, User
from lab.apiserver.calico_definitions import install
from lab.apiserver.requests import Target as Asked
from tests import deployed

NAMESPACE = "calico-why"
CALICO = "crd.projectcalico.org"
CALICO_PODS = "calico-system"  # the namespace they are in
FIXES = Path(__file__).parents[2] / "fixes"
DEFINITIONS = ("fixrequest.yaml", "auditrecord.yaml", "admission.yaml")
WRITES = frozenset({"create", "update", "patch", "delete"})
# The one write of each kind that is its effect; what else it writes follows from it.
EFFECTS = {
    ("update", "ippools"): "enable_pool",
    ("update", "blockaffinities"): "delete_block_affinity",
    ("update", "ipamblocks"): "release_ip",
    ("delete", "pods"): "restart_calico_node",
}
ENOUGH = "1000000"


Identity = tuple[str, str, frozenset[tuple[str, str]]]


def of(kind: str, node: str, arguments: Mapping[str, str]) -> Identity:
    """What a request is for: all that it says, but for when that was seen and what Felix would do."""
    left = {name: text for name, text in arguments.items() if name not in ("seen_at", "felix_s")}
    return kind, node if kind != "restart_calico_node" else "", frozenset(left.items())


class Server(ApiServer):
    """`before(writer)` when a write has come in whole, `after(writer, asked, status)` when it was made or refused."""

    before: Callable[[str], None]
    after: Callable[[str, str, Asked, int], None]

    async def _resource(self, request: web.Request, user: User, target: Asked) -> web.StreamResponse:
        verb = target.verb(request.method, request.query)
        if verb not in WRITES:
            return await super()._resource(request, user, target)
        await request.read()
        self.before(user.name)
        status = 500
        try:
            response = await super()._resource(request, user, target)
            status = response.status
            return response
        except ApiError as error:
            status = error.status
            raise
        finally:
            self.after(user.name, verb, target, status)


class Cluster:
    """The objects, every FixRequest as it is now, and when each came into which phase.

    effect(target): one of the cluster's fixers has written what mends it.
    """

    def __init__(self, targets: list[Target], effect: Callable[[Target], None], moment: Callable[[str], None]) -> None:
        self.objects = Store(history=200_000)
        self.tokens: dict[str, User] = {}
        self._server = Server(self.objects, self.tokens)
        self._server.before = moment
        self._server.after = self._written
        self._moment = moment
        self._effect = effect
        self.requests: dict[str, FixRequest] = {}
        self.names: defaultdict[Identity, list[str]] = defaultdict(list)  # of the requests for one wrong thing
        self.since: dict[tuple[str, str], float] = {}  # name and phase: time.monotonic() of the write
        self.changes: dict[str, Callable[[], None]] = {}  # by name: what another hand does once it is Approved
        self.undo: set[tuple[str, int]] = set()  # kind and number of what another hand makes wrong again at once
        self._news = asyncio.Event()
        self._by_name = {
            **{("ippools", target.pool): target for target in targets if target.kind == "enable_pool"},
            **{("ipamblocks", target.block_name): target for target in targets if target.kind == "release_ip"},
            **{
                ("blockaffinities", f"{CLAIMANT}-{target.block_name}"): target
                for target in targets
                if target.kind == "delete_block_affinity"
            },
            **{("pods", target.pod): target for target in targets if target.kind == "restart_calico_node"},
        }
        self.nodes = [*NODES, *(target.worker for target in targets if target.kind == "restart_calico_node")]
        self._fill(targets)
        self.objects.subscribe(self._seen, f"{PLURAL}.{GROUP}")
        self.objects.subscribe(self._pod_gone, "pods")

    @contextlib.asynccontextmanager
    async def served(self, host: str) -> Any:
        import socket

        listener = socket.create_server((host, 0))
        await self._server.start(listener)
        self.url = f"http://{host}:{listener.getsockname()[1]}"
        try:
            yield self
        finally:
            await self._server.stop()

    async def until(self, true: Callable[[], bool], timeout_s: float) -> bool:
        """Whether it came true in that time; looked at after each change of a request."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not true():
                    await self._news.wait()
        return true()

    # ---- what others do

    def change(self, target: Target) -> None:
        """The evidence of its request no longer holds."""
        if target.kind == "enable_pool":
            self._enable(target, True)
        elif target.kind == "delete_block_affinity":
            self.objects.delete("blockaffinities", f"{CLAIMANT}-{target.block_name}")
        elif target.kind == "release_ip":  # the address was given away again
            block = self.objects.get("ipamblocks", target.block_name)
            block["spec"]["sequenceNumber"] += 1
            block["spec"]["sequenceNumberForAllocation"] = {str(ORDINAL): target.number + 1_000_000}
            self.objects.update(block)
        else:
            self.objects.delete("pods", target.pod, "calico-system")

    def _undo(self, target: Target) -> None:
        if target.kind == "enable_pool":
            self._enable(target, False)
        elif target.kind == "delete_block_affinity":
            affinity = self.objects.get("blockaffinities", f"{CLAIMANT}-{target.block_name}")
            affinity["spec"].pop("deleted", None)
            self.objects.update(affinity)

    def _enable(self, target: Target, on: bool) -> None:
        pool = self.objects.get("ippools", target.pool)
        pool["spec"]["disabled"] = not on
        self.objects.update(pool)

    def right(self, target: Target) -> bool:
        """Whether it is mended now."""
        if target.kind == "enable_pool":
            return not self.objects.get("ippools", target.pool)["spec"]["disabled"]
        if target.kind == "delete_block_affinity":
            found = self.objects.find(self.objects.resource("blockaffinities"), f"{CLAIMANT}-{target.block_name}")
            return found is None or bool(found["spec"].get("deleted"))
        if target.kind == "release_ip":
            return self.objects.get("ipamblocks", target.block_name)["spec"]["allocations"][ORDINAL] is None
        return self.objects.find(self.objects.resource("pods"), target.pod, "calico-system") is None

    # ---- what is seen

    def _written(self, writer: str, verb: str, asked: Asked, status: int) -> None:
        if status >= 400:
            return
        kind = EFFECTS.get((verb, asked.plural))
        target = self._by_name.get((asked.plural, asked.name))
        if kind is not None and target is not None and target.kind == kind and writer.startswith("cluster"):
            self._effect(target)
            if (target.kind, target.number) in self.undo:
                self.undo.discard((target.kind, target.number))
                self._undo(target)
        approved = asked.plural == PLURAL and (asked.name, "Approved") in self.since
        if approved and (change := self.changes.pop(asked.name, None)):
            change()
        self._moment(writer)

    def _seen(self, event: Event) -> None:
        name = event.object["metadata"]["name"]
        request = parse(event.object)
        if name not in self.requests:
            self.names[of(request.spec.kind, request.spec.node, request.spec.arguments)].append(name)
        self.requests[name] = request
        self.since.setdefault((name, str(request.status.phase)), time.monotonic())
        self._news.set()
        self._news = asyncio.Event()

    def _pod_gone(self, event: Event) -> None:
        """The DaemonSet: another pod takes the place of a deleted one."""
        name = event.object["metadata"]["name"]
        if event.type == "DELETED" and name.endswith("-first"):
            asyncio.get_running_loop().call_soon(
                self._pod, event.object["spec"]["nodeName"], name.replace("-first", "-next")
            )

    # ---- what is there from the start

    def user(self, name: str, rights: User) -> str:
        """The token of a new user of this name, who may what the other may."""
        self.tokens[f"token-{name}"] = dataclasses.replace(rights, name=name)
        return f"token-{name}"

    def _fill(self, targets: list[Target]) -> None:
        for name in (NAMESPACE, CALICO_PODS):
            self.objects.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        for name in DEFINITIONS:
            for definition in yaml.safe_load_all((FIXES / name).read_text()):
                self.objects.create(definition)
        install(self.objects)
        for one in deployed.objects():
            self.objects.create(one)
        limits = {"perNodePerHour": ENOUGH, "perKindPerHour": ENOUGH}
        self.objects.update({**self.objects.get("configmaps", SWITCH, NAMESPACE), "data": limits})
        self._calico("ClusterInformation", "default", datastoreReady=True)
        node = {"leakGracePeriod": f"{GRACE_S}s"}
        self._calico("KubeControllersConfiguration", "default", controllers={"node": node})
        for name in self.nodes:
            ready = {"conditions": [{"type": "Ready", "status": "True"}]}
            self.objects.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": ready})
        for target in targets:
            if target.kind == "enable_pool":
                self._calico("IPPool", target.pool, cidr=target.block, disabled=True, blockSize=26)
            elif target.kind == "delete_block_affinity":
                self._calico("IPAMBlock", target.block_name, **_block(target, []))
                claim = {"cidr": target.block, "node": CLAIMANT, "state": "confirmed", "type": "host"}
                self._calico("BlockAffinity", f"{CLAIMANT}-{target.block_name}", **claim)
            elif target.kind == "release_ip":
                self._calico("IPAMBlock", target.block_name, **_block(target, [target.attribute]))
                self._calico("IPAMHandle", target.handle, handleID=target.handle, block={target.block: 1})
            elif target.kind == "restart_calico_node":
                self._pod(target.worker, target.pod)

    def _calico(self, kind: str, name: str, **spec: Any) -> None:
        self.objects.create({"apiVersion": f"{CALICO}/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})

    def _pod(self, node: str, name: str) -> None:
        owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "calico-node", "uid": "1", "controller": True}
        metadata = {
            "name": name,
            "namespace": "calico-system",
            "labels": {"k8s-app": "calico-node"},
            "ownerReferences": [owner],
        }
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": node}, "status": status}
        self.objects.create(pod)


def _block(target: Target, attributes: list[dict[str, Any]]) -> dict[str, Any]:
    """A block of 64 addresses, of which one is held where there is somebody to hold it."""
    held = [ORDINAL] if attributes else []
    return {
        "cidr": target.block,
        "affinity": f"host:{OWNER}",
        "allocations": [0 if ordinal in held else None for ordinal in range(64)],
        "attributes": attributes,
        "unallocated": [ordinal for ordinal in range(64) if ordinal not in held],
        "sequenceNumber": target.number + 1,
        "sequenceNumberForAllocation": {str(ordinal): target.number for ordinal in held},
        "strictAffinity": False,
        "deleted": False,
    }
