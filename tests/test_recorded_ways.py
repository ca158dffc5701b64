"""Clusters no kernel here can be: IPIP, WireGuard, BGP alone, bonds, eBPF, host-local IPAM. Whole recorded clusters are
rewritten as such ones, and nobody is accused in any of them, whoever of it asks whom."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest

from bot.errors import UserError
from facts import Diagnosis, Fact, NodeAsk
from tests.exhaustive import Cells
from tests.less_sight import without_each_resource_of
from tests.recorded_answers import alive, cluster_of, judged, known
from tests.recorded_kernel import Recording
from tests.recorded_states import recorded
from tests.recorded_ways import BIRD, FELIX, Way, bonded, changed, ebpf, host_local, ipip, plain, wireguard
from tests.test_recorded_states import passing, pods_of, told

ALWAYS, DUALSTACK, TWO_SUBNETS = "v3.32.1/healthy", "v3.32.1/dualstack/healthy", "v3.32.1/crosssubnet"
OLDER, NEWER, BORROWED = "v3.31.7/healthy-always", "master-87c15906f20c/healthy", "v3.32.1/exhaustion/2-pods-borrowed"
NFTABLES, NEAR = "v3.32.1/nftables-mode/1-after-switch", "v3.31.7/healthy-crosssubnet-same-subnet"
PODS_OF_A_NODE = 2  # that are asked about: a third differs in nothing
ASKED = Cells(every=10)  # questions about each cluster
REFUSED = Cells(every=16)  # resources, for each cluster and kind of source

# Each way with clusters of different versions, pools and families, and every two ways that can be together.
CLUSTERS: dict[str, tuple[str, tuple[Way, ...]]] = {
    "IPIP by BIRD": (ALWAYS, (ipip(),)),
    "IPIP by BIRD, 3.31": (OLDER, (ipip(),)),
    "IPIP by BIRD, borrowed addresses": (BORROWED, (ipip(),)),
    "IPIP by BIRD, one family of two": (DUALSTACK, (ipip(),)),
    "IPIP by BIRD, two subnets": (TWO_SUBNETS, (ipip(),)),
    "IPIP by Felix": (NEWER, (ipip(FELIX),)),
    "IPIP by Felix, borrowed addresses": (BORROWED, (ipip(FELIX),)),
    "IPIP by Felix, nftables": (NFTABLES, (ipip(FELIX),)),
    "IPIP CrossSubnet by BIRD": (TWO_SUBNETS, (ipip(mode="CrossSubnet"),)),
    "IPIP CrossSubnet by Felix": (TWO_SUBNETS, (ipip(FELIX, "CrossSubnet"),)),
    "IPIP CrossSubnet by BIRD, one subnet": (NEAR, (ipip(BIRD, "CrossSubnet"),)),
    "IPIP CrossSubnet by Felix, one family of two": (DUALSTACK, (ipip(FELIX, "CrossSubnet"),)),
    "BGP": (DUALSTACK, (plain(),)),
    "BGP, borrowed addresses": (BORROWED, (plain(),)),
    "no encapsulation by Felix": (NEWER, (plain(FELIX),)),
    "WireGuard": (ALWAYS, (wireguard(),)),
    "WireGuard, both families": (DUALSTACK, (wireguard(),)),
    "WireGuard, two subnets": (TWO_SUBNETS, (wireguard(),)),
    "WireGuard, borrowed addresses": (BORROWED, (wireguard(),)),
    "WireGuard, one node without": (OLDER, (wireguard(without="node-c"),)),
    "WireGuard, one node without, borrowed addresses": (BORROWED, (wireguard(without="node-c"),)),
    "WireGuard, one node without, both families": (DUALSTACK, (wireguard(without="node-b"),)),
    "WireGuard over IPIP": (NEWER, (ipip(), wireguard())),
    "WireGuard over IPIP CrossSubnet": (TWO_SUBNETS, (ipip(FELIX, "CrossSubnet"), wireguard(without="node-a"))),
    "WireGuard over BGP": (DUALSTACK, (plain(), wireguard(without="node-b"))),
    "bond": (DUALSTACK, (bonded,)),
    "bond, two subnets": (TWO_SUBNETS, (bonded,)),
    "bond and IPIP": (OLDER, (bonded, ipip())),
    "bond and BGP": (BORROWED, (bonded, plain())),
    "bond, IPIP and WireGuard": (NFTABLES, (bonded, ipip(FELIX), wireguard())),
    "host-local addresses and IPIP": (ALWAYS, (ipip(), host_local)),
    "host-local addresses and BGP": (OLDER, (plain(), host_local)),
    "host-local addresses and IPIP CrossSubnet by Felix": (TWO_SUBNETS, (ipip(FELIX, "CrossSubnet"), host_local)),
    "host-local addresses and IPIP CrossSubnet by Felix, one subnet": (NEAR, (ipip(FELIX, "CrossSubnet"), host_local)),
    "host-local addresses and no encapsulation by Felix": (NEWER, (plain(FELIX), host_local)),
}


def questions(recording: Recording) -> list[tuple[str, str]]:
    """All ordered pairs of pods and of nodes, and every node with a pod of every node, both ways."""
    nodes = sorted(recording.nodes)
    of_node = {
        node: [one.name for one in pods_of(recording) if one.node == node and one.address][:PODS_OF_A_NODE]
        for node in nodes
    }
    mixed = [(node, pods[-1]) for node in nodes for pods in of_node.values()]
    pairs = permutations([pod for pods in of_node.values() for pod in pods], 2)
    return [*pairs, *permutations(nodes, 2), *mixed, *((pod, node) for node, pod in mixed)]


async def answers(name: str, recording: Recording, directory: Path) -> list[tuple[str, str, Diagnosis]]:
    nodes = {pod.name: pod.node for pod in pods_of(recording)}

    def kind(pair: tuple[str, str]) -> tuple[object, ...]:
        source, target = pair
        return name, source in nodes, target in nodes, nodes.get(source, source) == nodes.get(target, target)

    pairs = questions(recording)
    assert len(pairs) >= 30
    async with cluster_of(recording, directory) as cluster:
        return [
            (source, target, judged(await known(cluster, source, target), recording, passing))
            for source, target in ASKED.of(name, pairs, kind)
        ]


@pytest.mark.parametrize("name", CLUSTERS)
async def test_a_healthy_cluster_that_no_kernel_here_can_be_is_called_healthy(name: str, tmp_path: Path) -> None:
    state, ways = CLUSTERS[name]
    found = await answers(name, changed(recorded(state), ways), tmp_path)
    odd = [
        (*told(source, target, one), one.blind)
        for source, target, one in found
        if one.verdict != "healthy" or one.warnings or one.blind
    ]
    assert odd == []


@pytest.mark.parametrize("source", ["pod", "node"])
@pytest.mark.parametrize("name", CLUSTERS)
async def test_nobody_there_is_accused_by_somebody_who_may_not_read_everything(
    name: str, source: str, tmp_path: Path
) -> None:
    """Each resource of the API refused in turn."""
    state, ways = CLUSTERS[name]
    recording = changed(recorded(state), ways)
    pods = {pod.node: pod.name for pod in pods_of(recording) if pod.address}
    words = f"{pods['node-a'] if source == 'pod' else 'node-a'} {pods['node-b']}"

    def seen(ask: NodeAsk) -> list[Fact]:
        return recording.answer(ask, passing, alive(ask.node))

    def some(resources: list[str]) -> list[str]:
        return REFUSED.of(f"{name} {source}", resources, str)

    whole, answers = await without_each_resource_of(recording, seen, words, tmp_path, some)
    assert (whole.verdict, whole.causes, whole.warnings) == ("healthy", (), ())
    for resource, one in answers.items():
        if isinstance(one, UserError):
            assert resource in one.sentence
            continue
        assert (one.causes, one.warnings) == ((), ()), (resource, one.summary)
        assert one.verdict == "unknown" or all(blind.minor for blind in one.blind), (resource, one.blind)
        told_of = [blind for blind in one.blind if resource in f"{blind.look} {blind.reason}"]
        assert told_of or (resource, source) == ("services", "node"), resource  # what is a node is no Service


@pytest.mark.parametrize("state", [ALWAYS, DUALSTACK, OLDER])
async def test_of_ebpf_it_is_said_what_cannot_be_judged_and_nobody_is_accused(state: str, tmp_path: Path) -> None:
    for source, target, one in await answers(state, changed(recorded(state), (ebpf,)), tmp_path):
        assert (one.causes, one.warnings) == ((), ()), told(source, target, one)
        said = {str(blind.reason).partition(" carry ")[0] for blind in one.blind}
        assert (one.verdict, said) == ("unknown", {"Calico's eBPF programs"}), told(source, target, one)


# ---- and what is broken in such a cluster is named


async def lost(recording: Recording, directory: Path, source: str, target: str) -> list[tuple[str, str]]:
    """(failure mode, node) of each cause, where no packet between the two passes and the nodes reach each other."""
    async with cluster_of(recording, directory) as cluster:
        facts = await known(cluster, source, target)
        addresses = {one["local"] for kernel in recording.nodes.values() for one in kernel.addresses["eth0"]}
        found = judged(facts, recording, lambda _, probe: "answered" if probe.target in addresses else "silence")
    return [(cause.rule, cause.node) for cause in found.causes]


@pytest.mark.parametrize("ends", [("default/pod-a1", "default/pod-b1"), ("node-a", "default/pod-b1")])
@pytest.mark.parametrize(
    ("ways", "device", "mode"),
    [
        ((ipip(),), "tunl0", "ipip_device_missing"),
        ((ipip(FELIX),), "tunl0", "ipip_device_missing"),
        ((wireguard(),), "wireguard.cali", "wireguard_device_missing"),
    ],
)
async def test_a_tunnel_device_that_is_gone_is_named_for_pods_and_for_nodes(
    ends: tuple[str, str], ways: tuple[Way, ...], device: str, mode: str, tmp_path: Path
) -> None:
    recording = changed(recorded(ALWAYS), ways)
    recording.nodes["node-b"].remove_link(device)
    assert await lost(recording, tmp_path, *ends) == [(mode, "node-b")]


async def test_a_node_whose_annotations_lack_its_tunnel_s_address_is_judged_by_packets_only(tmp_path: Path) -> None:
    """WireGuard that encrypts what hosts send among themselves has no such address."""
    recording = changed(recorded(ALWAYS), (wireguard(),))
    for one in recording.objects:
        if one["kind"] == "Node":
            one["metadata"]["annotations"].pop("projectcalico.org/IPv4WireguardInterfaceAddr")
    async with cluster_of(recording, tmp_path) as cluster:
        found = judged(await known(cluster, "node-a", "default/pod-b1"), recording, passing)
    assert (found.verdict, found.causes) == ("unknown", ())
    assert ["no annotation tells" in str(blind.reason) for blind in found.blind] == [True]
