"""What a node itself sends into an IPIP or WireGuard tunnel carries an address of that tunnel, there and back: its
wounds are named as those of pods are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from facts import Diagnosis
from tests.recorded_answers import cluster_of, judged, known
from tests.recorded_kernel import Kernel, Object, Recording
from tests.recorded_states import annotate, recorded
from tests.recorded_ways import FELIX, Way, changed, ipip, plain, wireguard
from tests.test_recorded_states import passing

HEALTHY, POD = "v3.32.1/healthy", "default/pod-b1"
OTHER_KEY = "b3RoZXIga2V5IG90aGVyIGtleSBvdGhlciBrZXkgb3Q="
Wound = Callable[[Recording], None]


async def answer(recording: Recording, directory: Path, *, lost: bool) -> Diagnosis:
    """node-a sends to a pod of node-b. lost: only the nodes' own addresses answer."""
    async with cluster_of(recording, directory) as cluster:
        facts = await known(cluster, "node-a", POD)
        nodes = {one["local"] for kernel in recording.nodes.values() for one in kernel.addresses["eth0"]}
        return judged(
            facts,
            recording,
            (lambda _, probe: "answered" if probe.target in nodes else "silence") if lost else passing,
        )


def routes_to(kernel: Kernel, device: str) -> list[Object]:
    """Those of this node to others' pods, by whatever table."""
    return [one for one in kernel.routes if one.get("dev") == device and one["table"] != "local"]


def without_routes(node: str, device: str) -> Wound:
    def wound(recording: Recording) -> None:
        kernel = recording.nodes[node]
        gone = routes_to(kernel, device)
        assert gone
        kernel.routes = [one for one in kernel.routes if one not in gone]

    return wound


def routed(node: str, device: str, **fields: object) -> Wound:
    def wound(recording: Recording) -> None:
        for one in routes_to(recording.nodes[node], device):
            one.update(fields)

    return wound


def down(node: str, device: str) -> Wound:
    """Its routes go with it."""

    def wound(recording: Recording) -> None:
        without_routes(node, device)(recording)
        recording.nodes[node].links[device].update(flags=["NOARP"], operstate="DOWN")

    return wound


def announced(node: str) -> Wound:
    return lambda recording: annotate(recording, node, "projectcalico.org/WireguardPublicKey", OTHER_KEY)


IPIP, ENCRYPTED = (ipip(FELIX),), (plain(), wireguard())
WOUNDS: dict[str, tuple[tuple[Way, ...], Wound, list[tuple[str, str, str]]]] = {
    "no route there": (IPIP, without_routes("node-a", "tunl0"), [("route_missing", "node-a", "forward")]),
    "no route back": (IPIP, without_routes("node-b", "tunl0"), [("route_missing", "node-b", "reverse")]),
    "the uplink there": (IPIP, routed("node-a", "tunl0", dev="eth0"), [("route_wrong_device", "node-a", "forward")]),
    "the uplink back": (IPIP, routed("node-b", "tunl0", dev="eth0"), [("route_wrong_device", "node-b", "reverse")]),
    "another node there": (
        IPIP, routed("node-a", "tunl0", gateway="172.30.0.13"), [("route_wrong_next_hop", "node-a", "forward")],
    ),
    "another node back": (
        IPIP, routed("node-b", "tunl0", gateway="172.30.0.13"), [("route_wrong_next_hop", "node-b", "reverse")],
    ),
    "tunl0 down": (IPIP, down("node-a", "tunl0"), [("ipip_device_down", "node-a", "both")]),
    "tunl0 down at the peer": (IPIP, down("node-b", "tunl0"), [("ipip_device_down", "node-b", "both")]),
    "wireguard.cali down": (
        ENCRYPTED, down("node-b", "wireguard.cali"), [("wireguard_device_missing", "node-b", "both")],
    ),
    "a key nobody has": (ENCRYPTED, announced("node-b"), [("wireguard_key_mismatch", "node-b", "reverse")]),
}  # fmt: skip


@pytest.mark.parametrize("what", WOUNDS)
async def test_what_keeps_a_node_from_a_pod_is_named(what: str, tmp_path: Path) -> None:
    ways, wound, wanted = WOUNDS[what]
    recording = changed(recorded(HEALTHY), ways)
    wound(recording)
    found = await answer(recording, tmp_path, lost=True)
    assert [(one.rule, one.node, one.leg) for one in found.causes] == wanted


@pytest.mark.parametrize(("node", "leg"), [("node-a", "forward"), ("node-b", "reverse")])
async def test_without_any_route_nothing_is_encrypted_and_nothing_arrives(node: str, leg: str, tmp_path: Path) -> None:
    recording = changed(recorded(HEALTHY), ENCRYPTED)
    without_routes(node, "wireguard.cali")(recording)
    clear = await answer(recording, tmp_path, lost=True)
    assert (clear.verdict, clear.causes) == ("unknown", ()), "the pool's own route may well be a way"
    told = [(one.rule, one.node, one.leg) for one in clear.warnings]
    assert told == [("wireguard_route_missing", node, leg)] and "nobody encrypts" in clear.warnings[0].text
    kernel = recording.nodes[node]
    kernel.routes = [
        one for one in kernel.routes if one.get("gateway", "")[:8] != "172.30.0" or one["dst"] == "default"
    ]
    lost = await answer(recording, tmp_path, lost=True)
    assert [(one.rule, one.node, one.leg) for one in lost.causes] == [("wireguard_route_missing", node, leg)]
    passes = await answer(recording, tmp_path, lost=False)
    assert (passes.verdict, passes.causes) == ("healthy", ())
    assert [one.rule for one in passes.warnings] == ["wireguard_route_missing"]
