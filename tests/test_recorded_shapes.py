"""A healthy cluster that is run otherwise than ours is not accused: by `why`, and by `node status`."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest

from engine.plan import plan
from facts import Diagnosis, NodeAsk, SendProbe
from tests import recorded_shapes as shapes
from tests.recorded_answers import cluster_of, judged, known
from tests.recorded_kernel import Recording
from tests.recorded_states import recorded, resource
from tests.recorded_ways import Way, changed, wireguard
from tests.test_node_status import all_of, sentences
from tests.test_recorded_states import passing

ALWAYS, DUALSTACK, OLDER = "v3.32.1/healthy", "v3.32.1/dualstack/healthy", "v3.31.7/healthy-always"
SHAPES: dict[str, tuple[str, tuple[Way, ...]]] = {
    "VXLAN port in Felix's environment": (ALWAYS, (shapes.tunnel(port=4799), shapes.told(FELIX_VXLANPORT="4799"))),
    "VNI in Felix's environment": (ALWAYS, (shapes.tunnel(id=77), shapes.told(FELIX_VXLANVNI="77"))),
    "dual stack machines, IPv4 Calico": (DUALSTACK, (shapes.two_families_one_calico,)),
    "IPv6 first": (DUALSTACK, (shapes.ipv6_first,)),
    "no handles": (ALWAYS, (shapes.without_handles,)),
    "addresses reserved for Windows": (ALWAYS, (shapes.reserved_by_windows,)),
    "addresses used again": (ALWAYS, (shapes.addresses_used_again,)),
    "pools that choose": (ALWAYS, (shapes.selective_pools,)),
    "pools of two encapsulations": (ALWAYS, (shapes.two_encapsulations,)),
    "route reflectors": (ALWAYS, (shapes.peered_with("10.0.0.8", "10.0.0.9"),)),
    "a router that tells of all pods": (ALWAYS, (shapes.known_to_the_router("10.244.0.0/16"),)),
    "a router that tells of nothing": (ALWAYS, (shapes.known_to_the_router(),)),
    "an update": (ALWAYS, (shapes.being_updated,)),
    "Typha in a namespace of its own": (ALWAYS, (shapes.with_typha,)),
    "cordoned": (ALWAYS, (shapes.cordoned,)),
    "/32 subnets": (ALWAYS, (shapes.alone_in_their_subnets,)),
    "MTU 1460": (ALWAYS, (shapes.of_mtu(1460),)),
    "MTU 8981": (ALWAYS, (shapes.of_mtu(8981),)),
    "MTU 9001": (ALWAYS, (shapes.of_mtu(9001),)),
    "addresses on the loopback": (ALWAYS, (shapes.addresses_on_the_loopback,)),
    "a gateway and nothing else": (ALWAYS, (shapes.by_the_gateway_alone,)),
    "a VPN below": (ALWAYS, (shapes.over_a_vpn,)),
    "a floating address": (ALWAYS, (shapes.floating_address,)),
    "tables by source": (ALWAYS, (shapes.tables_by_source,)),
    "one family on a node": (DUALSTACK, (shapes.one_family_on_a_node,)),
    "routes of FRR": (ALWAYS, (shapes.written_by_others("186"),)),
    "routes of an administrator": (ALWAYS, (shapes.written_by_others("static"),)),
    "VLAN on a bond": (ALWAYS, (shapes.vlan_on_a_bond,)),
    "devices of others": (ALWAYS, (shapes.crowded,)),
    "WireGuard on another port": (ALWAYS, (wireguard(), shapes.felix(wireguardListeningPort=51900))),
    "WireGuard by another name": (ALWAYS, (shapes.wireguard_called("wg-calico"),)),
    "proxy ARP for all devices": (ALWAYS, (shapes.proxies_for_all,)),
    "pods without a default route": (ALWAYS, (shapes.without_a_default_route,)),
    "pods in a wide network": (ALWAYS, (shapes.in_a_wide_network,)),
    "second networks": (ALWAYS, (shapes.second_networks(default=False),)),
    "second networks with the default route": (ALWAYS, (shapes.second_networks(default=True),)),
    "3.24": (OLDER, (shapes.of_version("v3.24.5"),)),
    "a version of somebody's own": (OLDER, (shapes.of_version("v3.20.0-2.0"),)),
    "a version without a number": (OLDER, (shapes.of_version("master"),)),
    "several interface prefixes": (ALWAYS, (shapes.felix(interfacePrefix="cali,tap"),)),
}
# Of which something is not judged, and nobody accused.
UNJUDGED: dict[str, tuple[tuple[Way, ...], str]] = {
    "another plugin": ((shapes.another_plugin, shapes.told(CALICO_NETWORKING_BACKEND="none")), "another plugin"),
    "another plugin with a bridge": ((shapes.bridged(),), "another plugin"),
    "another plugin with interfaces of its own": ((shapes.bridged("veth"),), "another plugin"),
    "a Windows node": ((shapes.of_windows,), "a Windows node"),
    "sandboxes": ((shapes.sandboxes,), "a kernel of its own"),
    "virtual machines": ((shapes.virtual_machines,), ""),
}
PODS = ("default/pod-a1", "default/pod-b1", "default/pod-c1")
QUESTIONS = [
    *permutations(PODS, 2),
    ("default/pod-a1", "default/pod-a2"),
    ("node-a", "default/pod-b1"),
    ("default/pod-b1", "node-c"),
    ("node-a", "node-b"),
]


async def answers(recording: Recording, directory: Path) -> dict[str, Diagnosis]:
    async with cluster_of(recording, directory) as cluster:
        return {
            f"{source} {target}": judged(await known(cluster, source, target), recording, passing)
            for source, target in QUESTIONS
        }


@pytest.mark.parametrize("name", SHAPES)
async def test_a_healthy_cluster_of_another_shape_is_called_healthy(name: str, tmp_path: Path) -> None:
    state, ways = SHAPES[name]
    found = await answers(changed(recorded(state), ways), tmp_path)
    odd = {
        words: (one.verdict, one.causes, one.warnings, one.blind)
        for words, one in found.items()
        if one.verdict != "healthy" or one.warnings or [blind for blind in one.blind if not blind.minor]
    }
    assert odd == {}


@pytest.mark.parametrize("name", SHAPES)
async def test_and_so_are_its_nodes(name: str, tmp_path: Path) -> None:
    state, ways = SHAPES[name]
    found = await all_of(changed(recorded(state), ways), tmp_path)
    assert {one.mark for one in found.values()} == {"healthy"}, {node: sentences(one) for node, one in found.items()}


@pytest.mark.parametrize("name", UNJUDGED)
async def test_what_is_not_judged_is_said_and_nobody_is_accused(name: str, tmp_path: Path) -> None:
    ways, words = UNJUDGED[name]
    found = await answers(changed(recorded(ALWAYS), ways), tmp_path)
    assert {asked: (one.causes, one.warnings) for asked, one in found.items() if one.causes or one.warnings} == {}
    between = found["default/pod-a1 default/pod-b1" if "Windows" not in name else "default/pod-a1 default/pod-c1"]
    assert between.verdict == "unknown"
    assert any(words in str(blind.reason) for blind in between.blind)
    status = await all_of(changed(recorded(ALWAYS), ways), tmp_path)
    assert "cause" not in {one.mark for one in status.values()}, {node: sentences(one) for node, one in status.items()}


async def test_a_node_that_is_no_machine_needs_no_calico_node_pod(tmp_path: Path) -> None:
    found = await answers(changed(recorded(ALWAYS), (shapes.without_a_machine,)), tmp_path)
    assert {asked: one.warnings for asked, one in found.items() if one.warnings} == {}


@pytest.mark.parametrize("shape", [shapes.sandboxes, shapes.virtual_machines])
async def test_nor_is_a_pod_whose_namespace_is_not_its_own_network(shape: Way, tmp_path: Path) -> None:
    """Nothing that is sent from its namespace comes back, and that is no fault of anybody's."""

    def sent(ask: NodeAsk, probe: SendProbe) -> str:
        return "silence" if probe.pod == "default/pod-b1" else passing(ask, probe)

    recording = changed(recorded(ALWAYS), (shape,))
    async with cluster_of(recording, tmp_path) as cluster:
        found = judged(await known(cluster, "default/pod-b1", "default/pod-a1"), recording, sent)
    assert (found.verdict, found.causes, found.warnings) == ("unknown", (), ())


async def test_what_is_sent_from_the_namespace_of_a_machine_of_its_own_proves_nothing(tmp_path: Path) -> None:
    """Kata leaves address and routes there, and its machine takes what comes in: no answer comes to the namespace."""

    def sent(ask: NodeAsk, probe: SendProbe) -> str:
        return "silence" if probe.pod == "default/pod-b1" else passing(ask, probe)

    recording = recorded(ALWAYS)
    resource(recording, "Pod", "pod-b1")["spec"]["runtimeClassName"] = "kata"
    async with cluster_of(recording, tmp_path) as cluster:
        found = judged(await known(cluster, "default/pod-b1", "default/pod-a1"), recording, sent)
        other = judged(await known(cluster, "default/pod-a1", "default/pod-b1"), recording, sent)
    assert (found.verdict, found.causes, found.warnings) == ("unknown", (), ())
    assert any("which may take the answers" in str(blind.reason) for blind in found.blind)
    assert (other.verdict, other.warnings, [one for one in other.blind if not one.minor]) == ("healthy", (), [])


async def test_a_pod_is_found_by_its_ipv4_address_where_ipv6_comes_first(tmp_path: Path) -> None:
    """The API finds pods by their first address; that of another one is no address of nobody."""
    recording = changed(recorded(DUALSTACK), (shapes.ipv6_first,))
    async with cluster_of(recording, tmp_path) as cluster:
        found = judged(await known(cluster, "default/pod-a1", "10.244.218.65"), recording, passing)
    assert found.question is not None
    assert (found.verdict, found.question.target) == ("healthy", "default/pod-b1")


async def test_nodes_that_are_told_different_ports_do_not_hear_each_other(tmp_path: Path) -> None:
    """Each device is as its own Felix wants it, so that no device is what is wrong."""
    recording = recorded(ALWAYS)
    recording.nodes["node-b"].links["vxlan.calico"]["linkinfo"]["info_data"]["port"] = 4799
    recording.objects += [shapes.agent("node-a", {}), shapes.agent("node-b", {"FELIX_VXLANPORT": "4799"})]
    async with cluster_of(recording, tmp_path) as cluster:
        found = judged(await known(cluster, "default/pod-a1", "default/pod-b1"), recording, passing)
    assert [one.rule for one in found.causes] == ["vxlan_port_wrong"]
    assert "4789 for node-a and 4799 for node-b" in found.causes[0].text


@pytest.mark.parametrize("way", [shapes.told(FELIX_HEALTHENABLED="false"), shapes.felix(healthEnabled=False)])
async def test_a_felix_that_is_told_to_answer_no_health_checks_is_not_missed(way: Way, tmp_path: Path) -> None:
    recording = changed(recorded(ALWAYS), (way,))
    async with cluster_of(recording, tmp_path) as cluster:
        facts = await known(cluster, "default/pod-a1", "default/pod-b1")
        found = judged(facts, recording, passing, stopped_on="node-a")
    assert (found.verdict, found.warnings) == ("healthy", ())


@pytest.mark.parametrize(
    "way", [shapes.felix(wireguardListeningPort=51900), shapes.told(FELIX_WIREGUARDLISTENINGPORT="51900")]
)
async def test_encrypted_packets_are_looked_for_on_the_port_that_felix_is_told(way: Way, tmp_path: Path) -> None:
    """On another one none would be seen to leave or to arrive."""
    async with cluster_of(changed(recorded(ALWAYS), (wireguard(), way)), tmp_path) as cluster:
        asked = plan(await known(cluster, "default/pod-a1", "default/pod-b1"))
    assert {watch.port for ask in asked for watch in ask.watch} == {51900}
