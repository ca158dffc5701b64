"""What the lab's Felix wants of a kernel is what real Felixes programmed, in every recorded state: pure, and quick."""

from __future__ import annotations

import json
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from facts.flow import TUNNEL_DEVICES
from lab.intent import Objects, intent
from lab.kernel import FAMILIES, Route, family_of
from tests.lab_state import PROTOCOLS, SCOPES
from tests.recordings import unpacked

# Healthy and odd states alike: a tunnel address and pods in another node's block, no block at all, subnets apart.
STATES = (
    "v3.32.1/healthy",
    "v3.32.1/crosssubnet",
    "v3.32.1/exhaustion/1-tunnel-borrowed",
    "v3.32.1/exhaustion/2-pods-borrowed",
    "v3.32.1/exhaustion/3-strict-affinity",
    "v3.32.1/exhaustion/6-strict-off",
    "v3.32.1/exhaustion/7-pool-full",
    "v3.32.1/dualstack/healthy",
    "v3.32.1/dualstack/status-podips-v4-only",
    "v3.32.1/scale/200-nodes",
    "v3.32.1/scale/5-blocks-one-node",
    "v3.31.7/healthy-always",
    "v3.31.7/healthy-crosssubnet-same-subnet",
    "master-87c15906f20c/healthy",
)
KINDS = {"nodes": "k8s", "pods": "k8s"}


def _items(directory: Path, resource: str) -> list[dict[str, Any]]:
    file = directory / KINDS.get(resource, "cr") / f"{resource}.json"
    found: list[dict[str, Any]] = json.loads(file.read_text())["items"] if file.exists() else []
    return found


@cache
def _objects(directory: Path, family: int) -> Objects:
    return Objects.read(lambda resource: _items(directory, resource), family)


def _recorded(directory: Path, family: int) -> tuple[set[Route], dict[str, str], dict[str, str]]:
    """The main table without what the machine's owner and the kernel put there; the tunnel's neighbors and FDB."""
    routes, tunnel = set(), TUNNEL_DEVICES["vxlan", family]
    for route in json.loads((directory / "ip-route.json").read_text()):
        device = route.get("dev", "")
        ours = device == tunnel or device.startswith("cali") or route["protocol"] == "80"
        if route["table"] != "main" or route["protocol"] == "kernel" or not ours:
            continue
        if family_of(route["dst"]) != family:
            continue
        routes.add(
            Route(
                str(ip_network(route["dst"])),
                kind=route["type"],
                gateway=route.get("gateway", ""),
                device="" if route["type"] == "blackhole" else route.get("dev", ""),
                protocol=80 if route["protocol"] == "80" else _number(PROTOCOLS, route["protocol"]),
                scope=_number(SCOPES, route["scope"]),
                metric=route.get("metric", 0),
                onlink="onlink" in route["flags"],
                mtu=route.get("metrics", [{}])[0].get("mtu", 0),
            )
        )
    neighbors = {
        entry["dst"]: entry["lladdr"]
        for entry in json.loads((directory / "ip-neigh.json").read_text())
        if entry["dev"] == tunnel and entry["state"] == ["PERMANENT"]
    }
    fdb = {
        entry["mac"]: entry["dst"]
        for entry in json.loads((directory / "bridge-fdb.json").read_text())
        if entry.get("ifname") == tunnel and "dst" in entry
    }
    return routes, neighbors, fdb


def _number(names: dict[int, str], word: str) -> int:
    return next(number for number, name in names.items() if name == word)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("state", STATES)
def test_every_recorded_node_is_as_wanted(state: str, family: int) -> None:
    directory = unpacked(state)
    objects = _objects(directory, family)
    nodes = [name for name in objects.nodes if (directory / name / "ip-route.json").exists()]
    assert nodes
    for name in nodes:
        wanted = intent(objects, name)
        routes, neighbors, fdb = _recorded(directory / name, family)
        assert set(wanted.routes) == routes, name
        assert dict(wanted.neighbors) == neighbors, name
        assert dict(wanted.fdb) == fdb, name
