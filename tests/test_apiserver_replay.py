"""Every recorded exchange with a real API server, asked again of ours; without it the lab's cluster could drift."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from yarl import URL

from lab.apiserver import ApiServer, Object, Store, User
from lab.apiserver.calico_definitions import install
from lab.apiserver.plain import copy
from tests.recordings import API_SERVER, unpacked

RECORDING = unpacked(API_SERVER)

TOKEN = "replayed"
ADMIN = User("admin", uid="admin", grants=None)
WATCH_STARTS_AFTER = "create namespace"

# Exchanges whose answer is allowed to differ, with the reason. One that does not differ may not stand here.
LEFT_OUT: dict[str, str] = {}
# These answers list what a whole Kubernetes serves; ours must say the same of everything it serves itself.
SUBSETS = {
    "discovery /api/v1",
    "discovery /apis",
    "aggregated discovery core",
    "aggregated discovery groups",
}
# Texts and versions of these are the server's own affair; keys and types are compared.
SHAPES = {"discovery /version", "discovery /api", "discovery /livez?verbose", "crd openapi v3"}
# Differ from run to run.
VOLATILE = {
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "lastTransitionTime",
    "time",
    "continue",
}


class Comparison:
    """Compares answers, and learns which of our uids, versions and names stand for the recorded ones."""

    def __init__(self) -> None:
        self.ours: dict[str, str] = {}
        self.found: list[str] = []

    def translate(self, value: Any, key: str = "") -> Any:
        """A recorded request or answer in our words."""
        if isinstance(value, dict):
            return {name: self.translate(entry, name) for name, entry in value.items()}
        if isinstance(value, list):
            return [self.translate(entry, key) for entry in value]
        if isinstance(value, str):
            if key == "resourceVersion":
                return self.ours.get(f"version {value}", value)
            return self.text(value)
        return value

    def text(self, text: str) -> str:
        for recorded, ours in self.ours.items():
            if not recorded.startswith("version "):
                text = text.replace(recorded, ours)
        return re.sub(
            r"(in record \(|current: )(\d+)",
            lambda found: found[1] + self.ours.get(f"version {found[2]}", found[2]),
            text,
        )

    def learn(self, key: str, recorded: str, ours: str) -> None:
        if key == "resourceVersion":
            self.ours[f"version {recorded}"] = ours
        elif key in ("uid", "continue") and recorded:
            self.ours[recorded] = ours

    def compare(self, recorded: Any, ours: Any, path: str = "", *, shape: bool = False) -> None:
        key = path.rpartition(".")[2]
        if type(recorded) is not type(ours):
            self.found.append(f"{path}: {recorded!r} was recorded, we say {ours!r}")
        elif isinstance(recorded, dict):
            for name in sorted(set(recorded) - set(ours)):
                self.found.append(f"{path}.{name}: missing")
            for name in sorted(set(ours) - set(recorded)):
                self.found.append(f"{path}.{name}: not in the recording")
            for name in recorded:
                if name in ours:
                    self.compare(recorded[name], ours[name], f"{path}.{name}", shape=shape)
        elif isinstance(recorded, list):
            if len(recorded) != len(ours):
                self.found.append(f"{path}: {len(recorded)} entries were recorded, we have {len(ours)}")
            for number, (one, other) in enumerate(zip(recorded, ours, strict=False)):
                self.compare(one, other, f"{path}[{number}]", shape=shape)
        elif key in VOLATILE and isinstance(recorded, str):
            self.learn(key, recorded, ours)
            if bool(recorded) != bool(ours):
                self.found.append(f"{path}: {recorded!r} was recorded, we say {ours!r}")
        elif key == "name" and isinstance(recorded, str) and recorded.startswith("gen-") and ours.startswith("gen-"):
            self.ours[recorded] = ours
        elif key == "description" or shape or re.search(r"\.cells\[\d+\]$", path):
            self.compare_cells(recorded, ours, path)
        elif self.translate(recorded, key) != ours and not (
            beginning(recorded) and beginning(recorded) == beginning(ours)
        ):
            self.found.append(f"{path}: {recorded!r} was recorded, we say {ours!r}")

    def compare_cells(self, recorded: Any, ours: Any, path: str) -> None:
        """Texts that need not be equal. In a table all but the age is."""
        age = re.compile(r"^(\d+[smhdy])+$")
        if (
            ".cells[" in path
            and self.translate(recorded) != ours
            and not (isinstance(recorded, str) and age.match(recorded) and age.match(ours))
        ):
            self.found.append(f"{path}: {recorded!r} was recorded, we say {ours!r}")


def beginning(text: Any) -> str:
    """The part of "too old resource version: 1 (578)" that is not about when the server began to remember."""
    found = re.match(r"too old resource version: \d+ \(", str(text))
    return found[0] if found else ""


def subset(recorded: Any, ours: Any) -> Any:
    """The recorded answer without the entries that we do not serve."""
    if isinstance(recorded, dict) and isinstance(ours, dict):
        return {
            name: subset(entry, ours[name]) if name in ours else entry
            for name, entry in recorded.items()
            if name in ours or name != "subresources"
        }
    if isinstance(recorded, list) and recorded and isinstance(recorded[0], dict) and isinstance(ours, list):
        by_name = {identity(entry): entry for entry in recorded}
        return [subset(by_name[identity(entry)], entry) for entry in ours if identity(entry) in by_name]
    return recorded


def identity(entry: Object) -> str:
    """By what an entry of a discovery list is known."""
    found = (
        entry.get("name") or entry.get("resource") or entry.get("subresource") or entry.get("metadata", {}).get("name")
    )
    return str(found or entry.get("version", ""))


def read(name: str) -> list[Object]:
    found: list[Object] = json.loads((RECORDING / name).read_text(encoding="utf-8"))
    return found


def present_before(exchanges: list[Object]) -> list[Object]:
    """The pods the real cluster had already: listed by node, the others known from their row in a table."""
    by_name = {exchange["name"]: exchange["response"]["body"] for exchange in exchanges}
    pods = [pod for pod in by_name["list pods by node"]["items"] if pod["metadata"]["name"] != "p"]
    known = {(pod["metadata"]["namespace"], pod["metadata"]["name"]) for pod in pods}
    for row in by_name["list pods as table"]["rows"]:
        metadata = row["object"]["metadata"]
        if (metadata["namespace"], metadata["name"]) in known:
            continue
        pod = copy(pods[0])
        pod["metadata"] = metadata
        pod["spec"]["nodeName"] = row["cells"][6]
        pod["status"]["podIP"] = row["cells"][5]
        pods.append(pod)
    return [{**copy(pod), "apiVersion": "v1", "kind": "Pod"} for pod in pods]


@pytest.fixture
async def server() -> AsyncIterator[tuple[str, Store]]:
    store = Store()
    install(store)
    for pod in present_before(read("exchanges.json")):
        namespace = pod["metadata"]["namespace"]
        if store.find(store.resource("namespaces"), namespace) is None:
            store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        store.create(pod)
    api = ApiServer(store, {TOKEN: ADMIN})
    url = await api.start()
    yield url, store
    await api.stop()


def authorization(name: str) -> dict[str, str]:
    if name == "no token":
        return {}
    return {"Authorization": "Bearer " + ("wrong" if name == "bad token" else TOKEN)}


async def ask(session: aiohttp.ClientSession, url: str, exchange: Object, comparison: Comparison) -> list[str]:
    """Replays one exchange. Returns the differences."""
    request, recorded = exchange["request"], exchange["response"]
    body = request["body"]
    if isinstance(body, str):
        data = body.encode()
    else:
        data = b"" if body is None else json.dumps(comparison.translate(body)).encode()
    headers = {**request["headers"], **authorization(exchange["name"]), "User-Agent": "Python/3.11"}
    target = URL(url + comparison.text(request["path"]), encoded=True)
    async with session.request(request["method"], target, data=data, headers=headers) as response:
        text = await response.text()
        told = (response.status, response.headers["Content-Type"])
        given = {name: response.headers[name] for name in ("Warning", "Retry-After") if name in response.headers}
    comparison.found = []
    if told != (recorded["status"], recorded["content_type"]):
        comparison.found.append(f"{(recorded['status'], recorded['content_type'])} was recorded, we say {told}")
    if given != recorded["headers"]:
        comparison.found.append(f"headers {recorded['headers']} were recorded, we send {given}")
    ours = json.loads(text) if told[1].startswith("application/json") else text
    wanted = recorded["body"]
    if exchange["name"] in SUBSETS:
        wanted = subset(wanted, ours)
    if "discovery" in exchange["name"] or exchange["name"].endswith("resources"):
        wanted, ours = in_order(wanted), in_order(ours)
    comparison.compare(wanted, ours, shape=exchange["name"] in SHAPES)
    return comparison.found


def in_order(value: Any) -> Any:
    """Discovery lists follow no order a client may rely on."""
    if isinstance(value, dict):
        return {name: in_order(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return sorted(
            (in_order(entry) for entry in value),
            key=lambda entry: identity(entry) if isinstance(entry, dict) else str(entry),
        )
    return value


async def collect(session: aiohttp.ClientSession, url: str, events: list[Object], wanted: int) -> None:
    path = f"{url}/apis/example.org/v1/namespaces/rec/widgets?watch=1"
    async with session.get(path, headers={"Authorization": f"Bearer {TOKEN}"}) as response:
        async for line in response.content:
            events.append(json.loads(line))
            if len(events) == wanted:
                return


async def test_every_exchange(server: tuple[str, Store]) -> None:
    url, _ = server
    exchanges, recorded = read("exchanges.json"), read("watch_events.json")
    assert len(exchanges) >= 94
    comparison = Comparison()
    differing: dict[str, list[str]] = {}
    events: list[Object] = []
    watching: asyncio.Task[None] | None = None
    async with aiohttp.ClientSession() as session:
        for exchange in exchanges:
            found = await ask(session, url, exchange, comparison)
            if found:
                differing[exchange["name"]] = list(found)
            if exchange["name"] == WATCH_STARTS_AFTER:
                watching = asyncio.create_task(collect(session, url, events, len(recorded)))
        assert watching is not None
        await asyncio.wait_for(watching, 10)
    unexpected = {name: found for name, found in differing.items() if name not in LEFT_OUT}
    assert not unexpected, json.dumps(unexpected, indent=1)[:20000]
    assert set(LEFT_OUT) == set(differing), "these need not be left out any more"

    comparison.found = []
    comparison.compare(recorded, events)
    assert not comparison.found, "\n".join(comparison.found)


CREATED = {
    "metadata": {"uid": "u1", "resourceVersion": "7", "labels": {"a": "b"}},
    "message": 'widgets "one" (u1) in record (7)',
    "rows": [{"cells": ["one", "8m55s"]}],
}


def test_the_comparison_forgives_what_differs_from_run_to_run() -> None:
    comparison = Comparison()
    ours = copy(CREATED)
    ours["metadata"] = {"uid": "u2", "resourceVersion": "9", "labels": {"a": "b"}}
    ours["message"] = 'widgets "one" (u2) in record (9)'
    ours["rows"] = [{"cells": ["one", "0s"]}]
    comparison.compare(CREATED, ours)
    assert comparison.found == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("metadata", "uid"), ""),
        (("metadata", "uid"), 5),
        (("metadata", "labels"), {"a": "c"}),
        (("metadata", "labels"), {}),
        (("metadata", "extra"), "x"),
        (("message",), "another"),
        (("rows",), []),
        (("rows",), [{"cells": ["two", "0s"]}]),
        (("rows",), [{"cells": ["one", "soon"]}]),
    ],
)
def test_the_comparison_sees_what_must_not_differ(path: tuple[str, ...], value: Any) -> None:
    comparison = Comparison()
    ours = copy(CREATED)
    at: Any = ours
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    comparison.compare(CREATED, ours)
    assert comparison.found
