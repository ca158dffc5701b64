"""The API server in a dictionary, and Calico's own writers on it, each stopping before every call.

So a test decides who comes next, call by call, which no real server lets it. What the model promises is only what
Kubernetes promises: a write with an old resourceVersion is refused, a delete keeps its preconditions.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Coroutine, Generator, Mapping
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import unquote

from fixes.calico import Calico, Object
from fixes.release import wrong
from fixes.request import stamp

CIDR = "10.244.1.0/29"
BLOCK = "10-244-1-0-29"
CIDR6 = "fd00:10:244:1::/125"
BLOCK6 = "fd00-10-244-1---125"
NOW = datetime(2026, 11, 22, 22, 4, tzinfo=UTC)
NODES = ("node-a", "node-b")


class _Stop:
    """Where a writer stands before its next call."""

    def __await__(self) -> Generator[_Stop]:
        yield self


class Model:
    """Objects by (resource, namespace, name), and who really uses which address."""

    def __init__(self, family: int = 4) -> None:
        self.cidr, self.name = (CIDR, BLOCK) if family == 4 else (CIDR6, BLOCK6)
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.uses: dict[str, str] = {}  # address -> handle of a sandbox that has it on its eth0
        self.writes: list[tuple[str, Object | None]] = []  # of blocks and handles: resource, object afterwards
        self._version = itertools.count(100)
        self._uid = itertools.count(1)

    def put(self, resource: str, name: str, namespace: str = "", **content: Any) -> Object:
        metadata = {"name": name, "uid": f"uid-{next(self._uid)}", "resourceVersion": str(next(self._version))}
        metadata |= {"namespace": namespace} if namespace else {}
        metadata |= content.pop("metadata", {})
        self.objects[resource, namespace, name] = {"metadata": metadata, **content}
        return self.objects[resource, namespace, name]

    def answer(self, method: str, path: str, body: Object | None) -> tuple[int, Object]:
        if path == "/apis":
            return 200, {"groups": [{"name": "crd.projectcalico.org"}]}
        parts = [unquote(part) for part in path.strip("/").split("/")]
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if parts[0] == "namespaces":
            namespace, parts = parts[1], parts[2:]
        if len(parts) == 1:
            items = [one for (resource, _, _), one in sorted(self.objects.items()) if resource == parts[0]]
            return 200, {"items": copy.deepcopy(items), "metadata": {}}
        key = (parts[0], namespace, parts[1])
        found = self.objects.get(key)
        if found is None:
            return 404, {"reason": "NotFound", "details": {"name": parts[1]}}
        if method == "GET":
            return 200, copy.deepcopy(found)
        assert body is not None
        if method == "PUT":
            if body["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
                return 409, {"reason": "Conflict"}
            body = copy.deepcopy(body)
            body["metadata"]["resourceVersion"] = str(next(self._version))
            self.objects[key] = body
            self.writes.append((parts[0], body))
            self.check()
            return 200, copy.deepcopy(body)
        given = body["preconditions"]
        if any(found["metadata"][name] != value for name, value in given.items()):
            return 409, {"reason": "Conflict"}
        del self.objects[key]
        self.writes.append((parts[0], None))
        self.check()
        return 200, {}

    @property
    def block(self) -> Object:
        spec: Object = self.objects["ipamblocks", "", self.name]["spec"]
        return spec

    def at(self, ordinal: int) -> str:
        """The address of the block with this number."""
        return str(ip_network(self.cidr)[ordinal])

    def holder(self, address: str) -> str:
        """The handle the block gives this address to; "" for a free one, or one in cooldown."""
        index = self.block["allocations"][int(ip_address(address)) - int(ip_network(self.cidr)[0])]
        return "" if index is None else str(self.block["attributes"][index].get("handle_id", ""))

    def count(self, handle: str) -> int:
        """What its IPAMHandle counts in the block."""
        found = self.objects.get(("ipamhandles", "", handle.lower()))
        return 0 if found is None else int(found["spec"]["block"].get(self.cidr, 0))

    def check(self) -> None:
        """What has to be so at any moment."""
        if ("ipamblocks", "", self.name) not in self.objects:
            raise AssertionError("the block was deleted")
        assert not wrong(self.block), wrong(self.block)
        for address, handle in self.uses.items():
            assert self.holder(address) == handle, f"{address}, in use by {handle}, is {self.holder(address) or 'free'}"
        held = [self.holder(self.at(ordinal)) for ordinal in range(8)]
        for handle in self.uses.values():
            assert self.count(handle) >= held.count(handle), f"handle {handle} counts too few addresses"


class Client(Calico):
    """One program that talks to the model; it stops before each of its calls."""

    def __init__(self, model: Model, now: Callable[[], datetime] = lambda: NOW) -> None:
        self.model = model
        self._group = "crd.projectcalico.org/v1"
        self.now = now

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Object | None = None
    ) -> tuple[int, Object]:
        await _Stop()
        return self.model.answer(method, path, copy.deepcopy(body))


def a_model(*, leaked: int = 1, cooldown_s: int | None = None, taken: int = 0, family: int = 4) -> Model:
    """Node-a's block: its tunnel's address .0; .1 (and .2) of the pod that is gone; `taken` addresses of living pods.

    leaked: how many addresses the gone pod's handle has, 1 or 2. The next free ones come first in the row.
    """
    model = Model(family)
    for node in NODES:
        model.put("nodes", node, metadata={"labels": {"kubernetes.io/os": "linux"}}, status={})
    model.put("clusterinformations", "default", spec={"datastoreReady": True})
    if cooldown_s is not None:
        model.put("ipamconfigs", "default", spec={"strictAffinity": False, "ipCooldownSeconds": cooldown_s})
    model.put(
        "ipamblocks",
        model.name,
        spec={
            "cidr": model.cidr,
            "affinity": "host:node-a",
            "allocations": [None] * 8,
            "unallocated": list(range(8)),
            "attributes": [],
            "sequenceNumber": 1795379357992745242,
            "sequenceNumberForAllocation": {},
            "deleted": False,
            "somethingNewer": {"kept": [1, 2]},
        },
    )
    assign(model, "vxlan-tunnel-addr-node-a", {"node": "node-a", "type": "vxlanTunnelAddress"})
    for _ in range(leaked):
        assign(model, GONE, about("gone"))
    for number in range(taken):
        address = assign(model, handle_of(f"old-{number}"), about(f"old-{number}"))
        start(model, f"old-{number}", address)
    return model


GONE_CONTAINER = "9" * 64
GONE = f"k8s-pod-network.{GONE_CONTAINER}"


def handle_of(pod: str) -> str:
    return f"k8s-pod-network.{pod}-container"


def about(pod: str) -> Object:
    return {"namespace": "shop", "pod": pod, "node": "node-a", "timestamp": "2026-11-22 20:26:45.120391 +0000 UTC"}


def _give(spec: Object, handle: str, secondary: Object) -> int:
    """Calico's autoAssign: the first free ordinal; equal attributes are one."""
    ordinal: int = spec["unallocated"].pop(0)
    attribute = {"handle_id": handle, "secondary": secondary}
    if attribute not in spec["attributes"]:
        spec["attributes"].append(attribute)
    spec["allocations"][ordinal] = spec["attributes"].index(attribute)
    spec["sequenceNumberForAllocation"][str(ordinal)] = spec["sequenceNumber"]
    spec["sequenceNumber"] += 1
    return ordinal


def assign(model: Model, handle: str, secondary: Object) -> str:
    """An address that was given before the test begins."""
    ordinal = _give(model.block, handle, secondary)
    key = ("ipamhandles", "", handle.lower())
    if key not in model.objects:
        model.put("ipamhandles", handle.lower(), spec={"handleID": handle, "block": {}, "deleted": False})
    block = model.objects[key]["spec"]["block"]
    block[model.cidr] = block.get(model.cidr, 0) + 1
    return model.at(ordinal)


def start(model: Model, pod: str, address: str, container: str = "") -> None:
    """The pod has its address, and says so."""
    container = container or f"{pod}-container"
    model.uses[address] = f"k8s-pod-network.{container}"
    show(model, pod, address, container)


def show(model: Model, pod: str, address: str, container: str) -> None:
    model.put(
        "pods",
        pod,
        "shop",
        metadata={"annotations": {"cni.projectcalico.org/containerID": container}},
        spec={"nodeName": "node-a"},
        status={"phase": "Running", "podIP": address, "podIPs": [{"ip": address}] if address else []},
    )


async def cni_add(client: Client, pod: str, container: str = "") -> None:
    """What the CNI plugin does for a new pod: the handle first, then the block, then the pod has it."""
    model, container = client.model, container or f"{pod}-container"
    handle = f"k8s-pod-network.{container}"
    show(model, pod, "", container)
    while True:
        block = await client.get("ipamblocks", client.model.name)
        assert block is not None
        if not block["spec"]["unallocated"]:
            return
        if ("ipamhandles", "", handle) not in model.objects:
            model.put("ipamhandles", handle, spec={"handleID": handle, "block": {model.cidr: 1}, "deleted": False})
        ordinal = _give(block["spec"], handle, about(pod))
        status, _ = await client._send(
            "PUT", f"/apis/crd.projectcalico.org/v1/ipamblocks/{client.model.name}", body=block
        )
        if status == 200:
            start(model, pod, model.at(ordinal), container)
            return


async def cni_del(client: Client, pod: str, handle: str = "") -> None:
    """What the CNI plugin does for a pod that ends, a little simpler: release by handle, then count down."""
    model, handle = client.model, handle or handle_of(pod)
    for address in [one for one, user in model.uses.items() if user == handle]:
        del model.uses[address]
    model.objects.pop(("pods", "shop", pod), None)
    while True:
        block = await client.get("ipamblocks", client.model.name)
        assert block is not None
        spec = block["spec"]
        ordinals = [
            ordinal
            for ordinal, index in enumerate(spec["allocations"])
            if index is not None and spec["attributes"][index].get("handle_id") == handle
        ]
        if not ordinals:
            return
        cooldown_s = ((model.objects.get(("ipamconfigs", "", "default")) or {}).get("spec") or {}).get(
            "ipCooldownSeconds"
        )
        if cooldown_s:
            spec["attributes"].append({"releasedAt": stamp(client.now())})
        for ordinal in ordinals:
            spec["allocations"][ordinal] = len(spec["attributes"]) - 1 if cooldown_s else None
            spec["unallocated"] += [] if cooldown_s else [ordinal]
        used = sorted({index for index in spec["allocations"] if index is not None})
        spec["allocations"] = [None if index is None else used.index(index) for index in spec["allocations"]]
        spec["attributes"] = [spec["attributes"][index] for index in used]
        spec["sequenceNumber"] += 1
        status, _ = await client._send(
            "PUT", f"/apis/crd.projectcalico.org/v1/ipamblocks/{client.model.name}", body=block
        )
        if status == 200:
            break
    while True:
        found = await client.get("ipamhandles", handle.lower())
        if found is None:
            return
        found["spec"]["block"][model.cidr] = found["spec"]["block"].get(model.cidr, 0) - len(ordinals)
        if found["spec"]["block"][model.cidr] <= 0:
            del found["spec"]["block"][model.cidr]
            found["spec"]["deleted"] = True
        path = f"/apis/crd.projectcalico.org/v1/ipamhandles/{handle.lower()}"
        status, written = await client._send("PUT", path, body=found)
        if status == 200:
            if found["spec"]["deleted"]:
                await client.delete("ipamhandles", written)
            return


async def storm(client: Client, writes: int) -> None:
    """Somebody writes the block again and again without changing whose an address is."""
    for _ in range(writes):
        block = await client.get("ipamblocks", client.model.name)
        assert block is not None
        block["spec"]["sequenceNumber"] += 1
        await client._send("PUT", f"/apis/crd.projectcalico.org/v1/ipamblocks/{client.model.name}", body=block)


Writer = Coroutine[Any, Any, None]


def step(writer: Writer) -> bool:
    """Let it make its next call; False when it has ended. Raises what it raises."""
    try:
        writer.send(None)
    except StopIteration:
        return False
    return True
