"""`node status` over what a running Calico's nodes held: who was well is not accused, and who was not is named."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bot.node import status
from bot.node.expected import Expectations, targets
from bot.node.health import judge, suspect
from bot.node.model import Node, Status
from bot.node.status import READ, Scene, asks, read, scene, told
from bot.reply import nodes as replies
from bot.reply import nodes_picture, png
from bot.sources.resources import everything
from facts import (
    BgpPeer,
    Bird,
    Blind,
    CalicoNode,
    CalicoSettings,
    Fact,
    FelixHealth,
    LinkAddresses,
    NodeAsk,
    NodeMachine,
    Pool,
    RouteTable,
)
from node_probe.collectors.bird import peers
from node_probe.server import LARGEST_ASK
from tests import recorded_calicoctl
from tests.recorded_answers import alive, cluster_of, stopped
from tests.recorded_kernel import Object, Recording
from tests.recorded_states import ADDRESS, TUNNEL, annotate, recorded, resource
from tests.recorded_ways import changed, ebpf, ipip, plain, wireguard
from tests.test_recorded_states import STATES, State, passing
from tests.test_recorded_ways import CLUSTERS

ALWAYS, DUALSTACK, BORROWED = "v3.32.1/healthy", "v3.32.1/dualstack/healthy", "v3.32.1/exhaustion/2-pods-borrowed"
# The policies of a state change nothing of its nodes.
HEALTHY = [name for name, about in STATES.items() if about == State() and "policy" not in name]
SILENT = Blind(node="node-b", look="probe", reason="its probe at 172.30.0.12 did not answer in 4 s")


async def scene_of(recording: Recording, directory: Path) -> Scene:
    async with cluster_of(recording, directory) as cluster:
        return await read(cluster)


def seen_on(recording: Recording, about: Scene, name: str) -> list[Fact]:
    asked = asks(about.nodes[name], about.wanted(name))
    return [fact for ask in asked for fact in recording.answer(ask, passing, alive(name))]


def judged_as(about: Scene, name: str, seen: Sequence[Fact]) -> Status:
    return judge(about.nodes[name], about.wanted(name), seen, about.common)


def judged(recording: Recording, about: Scene, **instead: Sequence[Fact]) -> dict[str, Status]:
    """instead: what another probe than the recorded one told, node_b=[...]."""
    return {
        name: judged_as(about, name, instead.get(name.replace("-", "_")) or seen_on(recording, about, name))
        for name in about.nodes
    }


async def all_of(recording: Recording, directory: Path) -> dict[str, Status]:
    return judged(recording, await scene_of(recording, directory))


def wrong(found: Mapping[str, Status]) -> dict[str, list[str]]:
    """The failure modes that are named, by node."""
    named = {name: [one.rule for one in about.findings if one.weight == "wrong"] for name, about in found.items()}
    return {name: rules for name, rules in named.items() if rules}


def sentences(one: Status) -> str:
    return " ".join(str(finding.text) for finding in one.findings)


# ---- nobody is accused


@pytest.mark.parametrize("state", HEALTHY)
async def test_the_nodes_of_a_healthy_recorded_cluster_are_called_healthy(state: str, tmp_path: Path) -> None:
    recording = recorded(state)
    found = await all_of(recording, tmp_path)
    assert {name: sentences(one) for name, one in found.items() if one.findings} == {}
    assert {one.mark for one in found.values()} == {"healthy"}
    assert all(route.met == route.expected > 0 for one in found.values() for route in one.routes)


@pytest.mark.parametrize("name", CLUSTERS)
async def test_nor_is_anybody_in_a_cluster_that_no_kernel_here_can_be(name: str, tmp_path: Path) -> None:
    state, ways = CLUSTERS[name]
    found = await all_of(changed(recorded(state), ways), tmp_path)
    assert {node: sentences(one) for node, one in found.items() if one.findings} == {}
    assert {one.mark for one in found.values()} == {"healthy"}
    assert all(route.met == route.expected > 0 for one in found.values() for route in one.routes)


async def test_of_ebpf_it_is_said_what_is_not_judged(tmp_path: Path) -> None:
    found = await all_of(changed(recorded(ALWAYS), (ebpf,)), tmp_path)
    assert wrong(found) == {}
    assert {one.mark for one in found.values()} == {"unknown"}
    assert "Calico's eBPF programs carry the packets" in sentences(found["node-a"])


@pytest.mark.parametrize("name", [ALWAYS, DUALSTACK, BORROWED, "IPIP by BIRD", "BGP", "WireGuard over IPIP"])
async def test_who_may_not_read_everything_accuses_nobody_and_says_what_was_not_seen(name: str, tmp_path: Path) -> None:
    state, ways = CLUSTERS.get(name, (name, ()))
    recording = changed(recorded(state), ways)
    blind: list[Blind] = []
    async with cluster_of(recording, tmp_path) as cluster:
        whole = await everything(cluster, READ, blind)
        group = await cluster.group()
    assert not blind
    for plural in READ[1:]:
        refused = Blind(look=plural, reason="the API server answered 403: no")
        about = scene({**whole, plural: None}, [], [], [refused], group)
        found = judged(recording, about)
        assert wrong(found) == {}, plural
        answer = told(list(found.values()), about, detailed=False, cluster="test")
        assert plural in " ".join(answer.notes), plural
        assert answer.mark == "unknown" or plural == "caliconodestatuses", plural


# ---- whoever is not well is named


@pytest.mark.parametrize(
    ("name", "device", "mode"),
    [
        (ALWAYS, "vxlan.calico", "vxlan_device_missing"),
        ("IPIP by BIRD", "tunl0", "ipip_device_missing"),
        ("IPIP by Felix", "tunl0", "ipip_device_missing"),
        ("WireGuard", "wireguard.cali", "wireguard_device_missing"),
        ("WireGuard, both families", "wg-v6.cali", "wireguard_device_missing"),
    ],
)
async def test_a_tunnel_device_that_is_gone_is_named_where_it_is_gone(
    name: str, device: str, mode: str, tmp_path: Path
) -> None:
    """Its routes went with it: they are no finding of their own."""
    state, ways = CLUSTERS.get(name, (name, ()))
    recording = changed(recorded(state), ways)
    recording.nodes["node-b"].remove_link(device)
    found = await all_of(recording, tmp_path)
    named = wrong(found)
    assert list(named) == ["node-b"]
    assert named["node-b"][0] == mode
    assert suspect(found["node-b"]) and not suspect(found["node-a"])
    if mode != "wireguard_device_missing":  # of WireGuard the routes are in a table of their own
        assert named["node-b"] == [mode]


def change_link(recording: Recording, node: str, **data: Any) -> None:
    link = recording.nodes[node].links["vxlan.calico"]
    link["linkinfo"]["info_data"].update(data)


@pytest.mark.parametrize(
    ("data", "mode"),
    [({"id": 4097}, "vxlan_vni_wrong"), ({"port": 8472}, "vxlan_port_wrong"),
     ({"local": "172.30.0.99"}, "vxlan_local_address_wrong")],
)  # fmt: skip
async def test_a_tunnel_device_that_is_not_as_configured_is_named(
    data: dict[str, Any], mode: str, tmp_path: Path
) -> None:
    recording = recorded(ALWAYS)
    change_link(recording, "node-c", **data)
    assert wrong(await all_of(recording, tmp_path)) == {"node-c": [mode]}


async def test_a_device_that_is_down_or_has_another_mac_or_address_is_named(tmp_path: Path) -> None:
    recording = recorded(ALWAYS)
    down = recording.nodes["node-a"].links["vxlan.calico"]
    down["flags"] = [one for one in down["flags"] if one != "UP"]
    recording.nodes["node-b"].links["vxlan.calico"]["address"] = "66:00:00:00:00:99"
    recording.nodes["node-c"].addresses["vxlan.calico"] = []
    assert wrong(await all_of(recording, tmp_path)) == {
        "node-a": ["vxlan_device_down"],
        "node-b": ["vxlan_device_mac_wrong"],
        "node-c": ["vxlan_device_address_wrong"],
    }


@pytest.mark.parametrize("name", [ALWAYS, "IPIP by Felix", "no encapsulation by Felix", "IPIP CrossSubnet by Felix"])
async def test_a_route_that_felix_should_have_written_is_named_by_its_prefix(name: str, tmp_path: Path) -> None:
    state, ways = CLUSTERS.get(name, (name, ()))
    recording = changed(recorded(state), ways)
    about = await scene_of(recording, tmp_path)
    (family,) = about.wanted("node-a")
    lost, moved = (one.prefix for one in about.wanted("node-a")[family].routes)
    kernel = recording.nodes["node-a"]
    kernel.routes = [one for one in kernel.routes if one["dst"] != lost]
    for one in kernel.routes:
        if one["dst"] == moved:
            one["gateway"] = "172.30.0.99"
    found = judged(recording, about)
    assert wrong(found) == {"node-a": ["route_missing", "route_wrong_next_hop"]}
    assert f"node-a lacks 1 of 2 IPv4 routes to blocks of other nodes: {lost}." in sentences(found["node-a"])
    assert f"{moved} via 172.30.0.99" in sentences(found["node-a"])
    assert found["node-a"].routes[0].met == 0


async def test_a_pool_that_was_disabled_is_named_rather_than_its_echo(tmp_path: Path) -> None:
    found = await all_of(recorded("v3.31.7/pool-disabled"), tmp_path)
    assert set(wrong(found)) == {"node-a", "node-b", "node-c"}
    assert {rule for rules in wrong(found).values() for rule in rules} == {"pool_disabled"}


async def test_a_node_that_lost_its_tunnel_address_is_named_and_the_others_are_not(tmp_path: Path) -> None:
    found = await all_of(recorded("v3.32.1/exhaustion/4-strict-tunnel-lost"), tmp_path)
    assert wrong(found) == {"node-c": ["tunnel_address_missing"]}


async def test_a_node_without_an_address_is_named_and_not_those_who_cannot_route_to_it(tmp_path: Path) -> None:
    recording = recorded(ALWAYS)
    annotate(recording, "node-c", ADDRESS, "")
    about = await scene_of(recording, tmp_path)
    assert wrong(judged(recording, about)) == {"node-c": ["node_address_missing"]}
    assert len(about.wanted("node-a")[4].routes) == 1


async def test_a_tunnel_address_two_nodes_have_is_told_of_the_one_that_took_it(tmp_path: Path) -> None:
    recording = recorded(ALWAYS)
    taken = resource(recording, "Node", "node-b")["metadata"]["annotations"][TUNNEL]
    annotate(recording, "node-c", TUNNEL, taken)
    recording.nodes["node-c"].addresses["vxlan.calico"][0]["local"] = taken
    assert wrong(await all_of(recording, tmp_path)) == {"node-c": ["tunnel_address_not_owned"]}


async def test_a_pod_s_own_route_is_not_said_to_lead_astray_where_ipam_is_mistaken(tmp_path: Path) -> None:
    """What IPAM holds for another node, and a pod of this one has: Felix is right to lead to the pod."""
    recording = recorded(ALWAYS)
    for spec in [one["spec"] for one in recording.objects if one["kind"] == "IPAMBlock"]:
        for attribute in spec["attributes"]:
            if attribute["secondary"].get("pod") == "pod-a1":
                attribute["secondary"]["node"] = "node-b"
    found = (await all_of(recording, tmp_path))["node-a"]
    assert ([one.weight for one in found.findings], found.mark) == (["note"], "healthy")
    assert "own pods at 1 IPv4 addresses that IPAM holds for other nodes" in sentences(found)


async def test_a_locked_datastore_is_told_of_the_cluster_and_of_no_node(tmp_path: Path) -> None:
    recording = recorded("v3.32.1/leaks/3-locked")
    about = await scene_of(recording, tmp_path)
    found = judged(recording, about)
    answer = told(list(found.values()), about, detailed=False, cluster="test")
    assert wrong(found) == {}
    assert (answer.mark, answer.status) == ("cause", 0)
    assert "datastoreReady: false" in answer.notes[0]
    assert answer.headline == "All 3 nodes are as they should be, and something of the cluster is not."


async def test_a_felix_that_answers_badly_twice_is_named_and_one_that_restarts_is_looked_at_again(
    tmp_path: Path,
) -> None:
    recording = recorded(ALWAYS)
    about = await scene_of(recording, tmp_path)
    others = [one for one in seen_on(recording, about, "node-b") if not isinstance(one, FelixHealth)]
    once = msgspec.structs.replace(stopped("node-b"), confirmed=False)
    found = judged(recording, about, node_b=[*others, once])
    assert (wrong(found), found["node-b"].felix, suspect(found["node-b"])) == ({}, "no answer", True)
    twice = status._confirmed(once, [once])
    assert wrong(judged(recording, about, node_b=[*others, twice])) == {"node-b": ["felix_not_ready"]}
    assert status._confirmed(alive("node-b"), [once]) == alive("node-b")


async def test_a_kubelet_that_is_silent_and_a_missing_calico_node_are_named(tmp_path: Path) -> None:
    recording = recorded(ALWAYS)
    conditions = [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "Kubelet stopped"}]
    resource(recording, "Node", "node-b").setdefault("status", {})["conditions"] = conditions
    blind: list[Blind] = []
    async with cluster_of(recording, tmp_path) as cluster:
        whole = await everything(cluster, READ, blind)
        group = await cluster.group()
    about = scene(whole, [calico_node("node-a"), calico_node("node-b")], [], blind, group)
    found = judged(recording, about)
    assert wrong(found) == {"node-b": ["node_not_ready"], "node-c": ["calico_node_missing"]}
    assert found["node-a"].calico == "v3.32.1"
    assert found["node-b"].kubelet == "silent"


async def test_a_calico_node_the_kubelet_has_had_unready_for_a_while_is_named(tmp_path: Path) -> None:
    recording = recorded(ALWAYS)
    pods = [calico_node(node) for node in recording.nodes]
    for pod, ago_s in zip(pods, (600, 5, 0), strict=True):
        since = (datetime.now(UTC) - timedelta(seconds=ago_s)).isoformat()
        pod["status"]["conditions"] = [
            {"type": "Ready", "status": "True" if ago_s == 0 else "False", "lastTransitionTime": since}
        ]
    blind: list[Blind] = []
    async with cluster_of(recording, tmp_path) as cluster:
        whole = await everything(cluster, READ, blind)
    found = judged(recording, scene(whole, pods, [], blind, "crd.projectcalico.org/v1"))
    assert {name: one.mark for name, one in found.items()} == {
        "node-a": "cause", "node-b": "healthy", "node-c": "healthy",
    }  # fmt: skip
    assert "the kubelet says that kube-system/calico-node-node-a on node-a is not ready, for 60" in sentences(
        found["node-a"]
    )


def calico_node(node: str, **environment: str) -> Object:
    env = [{"name": name, "value": value} for name, value in environment.items()]
    container = {"name": "calico-node", "image": "registry.example:5000/calico/node:v3.32.1@sha256:0", "env": env}
    return {
        "metadata": {"name": f"calico-node-{node}", "namespace": "kube-system"},
        "spec": {"nodeName": node, "containers": [container]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "calico-node", "state": {"running": {}}, "restartCount": 2}],
        },
    }


# ---- what could not be seen


async def test_a_node_whose_probe_is_silent_is_told_with_why_and_never_called_healthy(tmp_path: Path) -> None:
    recording = recorded(ALWAYS)
    about = await scene_of(recording, tmp_path)
    found = list(judged(recording, about, node_b=[SILENT]).values())
    answer = told(found, about, detailed=False, cluster="test")
    assert (answer.mark, answer.status) == ("unknown", 3)
    assert answer.headline == "1 of 3 nodes could not be judged."
    assert answer.notes[0] == "node-b could not be looked at: its probe at 172.30.0.12 did not answer in 4 s."
    first, second, *rest = answer.text.splitlines()
    assert first.split()[:2] == ["NODE", "FELIX"]
    assert second.startswith("?   node-b  no answer of its probe")
    assert [line.split()[:2] for line in rest] == [["ok", "node-a"], ["ok", "node-c"]]
    assert [row[:2] for row in answer.rows[1:]] == [
        ("node-b", "unknown"), ("node-a", "ok"), ("node-c", "ok"),
    ]  # fmt: skip
    assert answer.data["counts"] == {"wrong": 0, "unknown": 1, "ok": 2}


async def test_a_probe_of_an_older_version_tells_what_it_can(tmp_path: Path) -> None:
    recording = recorded(ALWAYS)
    about = await scene_of(recording, tmp_path)
    old = [one for one in seen_on(recording, about, "node-b") if not isinstance(one, RouteTable | NodeMachine)]
    found = judged(recording, about, node_b=old)
    assert found["node-b"].mark == "unknown"
    assert sentences(found["node-b"]) == "the IPv4 routes of node-b are not told by this version of its probe."
    assert (found["node-b"].felix, found["node-b"].tunnels[0].up) == ("ready", True)


# ---- BGP


async def of_bgp(
    recording: Recording, directory: Path, seen: Sequence[Fact] = (), *, agents: Sequence[Object] = (), **change: Any
) -> Status:
    """node-a, when its BIRD told this. change: resources instead of the recorded ones."""
    blind: list[Blind] = []
    async with cluster_of(recording, directory) as cluster:
        whole = {**await everything(cluster, READ, blind), **change}
        group = await cluster.group()
    about = scene(whole, list(agents), [], blind, group)
    others = [one for one in seen_on(recording, about, "node-a") if not isinstance(one, Bird | BgpPeer)]
    return judged_as(about, "node-a", [*others, *seen])


RUNS = Bird(node="node-a", seen=True, running=True, detail="BIRD v0.3.3 ready.")
GONE = Bird(node="node-a", seen=True, running=False)
HIDDEN = Bird(node="node-a", seen=False)


def session(address: str, state: str = "Established", kind: str = "mesh") -> BgpPeer:
    up = "up" if state == "Established" else "start"
    return BgpPeer(node="node-a", name=f"Mesh_{address}", kind=kind, address=address, state=up, session=state)


B, C = "172.30.0.12", "172.30.0.13"
OTHERS_OFF = [{"metadata": {"name": "default"}, "spec": {"nodeToNodeMeshEnabled": False}}]


async def test_a_session_that_is_down_is_told_with_the_node_behind_it(tmp_path: Path) -> None:
    told_so = [RUNS, session(B), session(C, "Active")]
    found = await of_bgp(changed(recorded(ALWAYS), (plain(),)), tmp_path, told_so)
    assert wrong({"node-a": found}) == {"node-a": ["bgp_peer_down"]}
    assert "the BGP session of node-a with 172.30.0.13 (node-c) is Active." in sentences(found)
    assert replies.bgp_cell(found.bgp) == "1/2"


async def test_a_pod_s_own_session_is_shown_and_is_nobody_s_fault(tmp_path: Path) -> None:
    told_so = [RUNS, session(B), session(C), session("10.244.1.5", "Active", "local_workload")]
    found = await of_bgp(changed(recorded(ALWAYS), (plain(),)), tmp_path, told_so)
    assert (found.mark, found.bgp[0].sessions[2].kind) == ("healthy", "local_workload")
    assert "local workload" in replies.text([found], detailed=True)


async def test_a_node_that_bird_does_not_know_is_told_where_bgp_brings_routes(tmp_path: Path) -> None:
    found = await of_bgp(changed(recorded(ALWAYS), (plain(),)), tmp_path, [RUNS, session(B)])
    assert wrong({"node-a": found}) == {"node-a": ["bgp_peer_down"]}
    assert "no IPv4 session with 172.30.0.13" in sentences(found)


@pytest.mark.parametrize(
    ("name", "seen", "change", "said"),
    [
        (ALWAYS, [GONE], {}, "BIRD does not run, and node-a needs none"),
        (ALWAYS, [HIDDEN], {}, "no pool's IPv4 routes on node-a are BIRD's to write"),
        (ALWAYS, [RUNS], {"bgpconfigurations": OTHERS_OFF}, "the mesh is off, and no BGPPeer is for node-a"),
        ("BGP", [HIDDEN], {}, "all IPv4 routes it should bring are there"),
        ("BGP", [RUNS], {"bgpconfigurations": OTHERS_OFF}, "the mesh is off, and no BGPPeer is for node-a"),
    ],
)
async def test_where_no_peer_is_needed_a_healthy_sentence_says_why(
    name: str, seen: Sequence[Fact], change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    ways = (plain(),) if name == "BGP" else ()
    found = await of_bgp(changed(recorded(ALWAYS), ways), tmp_path, seen, **change)
    assert (found.mark, found.findings) == ("healthy", ())
    assert said in str(found.bgp[0].told)


async def test_a_single_node_has_nobody_to_peer_with_and_is_well(tmp_path: Path) -> None:
    recording = changed(recorded(ALWAYS), (plain(),))
    gone = [one for one in recording.objects if one["kind"] == "Node" and one["metadata"]["name"] != "node-a"]
    recording.objects[:] = [one for one in recording.objects if one not in gone]
    found = await of_bgp(recording, tmp_path, [RUNS])
    assert (found.mark, found.routes[0].expected) == ("healthy", 0)
    assert "there is no other node to peer with" in str(found.bgp[0].told)


async def test_a_bird_that_should_run_and_does_not_is_named(tmp_path: Path) -> None:
    bird = calico_node("node-a", CALICO_NETWORKING_BACKEND="bird")
    others = [calico_node("node-b"), calico_node("node-c")]
    found = await of_bgp(recorded(ALWAYS), tmp_path, [GONE], agents=[bird, *others])
    assert wrong({"node-a": found}) == {"node-a": ["bgp_not_running"]}
    vxlan = calico_node("node-a", CALICO_NETWORKING_BACKEND="vxlan")
    found = await of_bgp(recorded(ALWAYS), tmp_path, [GONE], agents=[vxlan, *others])
    assert (found.mark, "is told to do VXLAN only" in str(found.bgp[0].told)) == ("healthy", True)


async def test_a_bird_that_does_not_run_breaks_what_its_routes_do_not_show(tmp_path: Path) -> None:
    recording = changed(recorded(ALWAYS), (plain(),))
    still_there = await of_bgp(recording, tmp_path, [GONE])
    assert (still_there.mark, [one.weight for one in still_there.findings]) == ("healthy", ["note"])
    kernel = recording.nodes["node-a"]
    kernel.routes = [one for one in kernel.routes if one.get("protocol") != "12"]
    assert wrong({"node-a": await of_bgp(recording, tmp_path, [GONE])}) == {"node-a": ["bgp_not_running"]}
    hidden = await of_bgp(recording, tmp_path, [HIDDEN])
    assert (hidden.mark, "has no IPv4 route to 2 blocks" in sentences(hidden)) == ("unknown", True)


async def test_where_no_probe_answers_a_calico_node_status_tells_of_the_sessions(tmp_path: Path) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    by_api: Object = {
        "metadata": {"name": "of-node-a"},
        "spec": {"node": "node-a", "classes": ["Agent", "BGP"], "updatePeriodSeconds": 10},
        "status": {
            "lastUpdated": now,
            "agent": {"birdV4": {"state": "Ready", "version": "v0.3.3+birdv1.6.8"}},
            "bgp": {
                "peersV4": [
                    {"peerIP": B, "type": "NodeMesh", "state": "Established", "since": "2026-11-22"},
                    {"peerIP": C, "type": "NodeMesh", "state": "Idle", "since": "2026-11-22"},
                ]
            },
        },
    }
    recording = changed(recorded(ALWAYS), (plain(),))
    blind: list[Blind] = []
    async with cluster_of(recording, tmp_path) as cluster:
        whole = {**await everything(cluster, READ, blind), "caliconodestatuses": [by_api]}
        about = scene(whole, [], [], blind, await cluster.group())
    silent = msgspec.structs.replace(SILENT, node="node-a")
    found = judged_as(about, "node-a", [silent])
    assert found.mark == "cause"
    assert "the BGP session of node-a with 172.30.0.13 (node-c) is Idle." in sentences(found)
    assert found.bgp[0].source == f"CalicoNodeStatus, {now}"
    assert replies.bgp_cell(found.bgp) == "1/2"
    by_api["status"]["lastUpdated"] = "2026-11-22T07:00:00Z"  # calico-node has written nothing since
    about = scene(whole, [], [], blind, "crd.projectcalico.org/v1")
    assert judged_as(about, "node-a", [silent]).bgp[0].running is None


async def test_routers_may_know_what_no_route_of_its_own_leads_to(tmp_path: Path) -> None:
    """A reflector's or a router's aggregate, or nothing but the default route: BGP has many right shapes."""
    recording = changed(recorded(ALWAYS), (plain(),))
    kernel = recording.nodes["node-a"]
    kernel.routes = [one for one in kernel.routes if one.get("protocol") != "12" or one["type"] == "blackhole"]
    peered = [RUNS, session("172.30.0.1", kind="global")]
    default = await of_bgp(recording, tmp_path, peered, bgpconfigurations=OTHERS_OFF)
    assert (default.mark, [one.weight for one in default.findings]) == ("healthy", ["note"])
    assert replies.route_cell(default.routes) == "0/2 (2 by default)"
    kernel.routes.append(
        {"type": "unicast", "dst": "10.244.0.0/16", "gateway": "172.30.0.1", "dev": "eth0", "table": "main",
         "protocol": "12", "scope": "global", "flags": []}
    )  # fmt: skip
    wider = await of_bgp(recording, tmp_path, peered, bgpconfigurations=OTHERS_OFF)
    assert (wider.findings, wider.routes[0].met, wider.routes[0].by_wider) == ((), 2, 2)


async def test_a_node_calico_is_not_meant_for_is_no_broken_one(tmp_path: Path) -> None:
    """A virtual kubelet's: the DaemonSet passes it over."""
    recording = recorded(ALWAYS)
    virtual = {"metadata": {"name": "virtual"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    blind: list[Blind] = []
    async with cluster_of(recording, tmp_path) as cluster:
        whole = await everything(cluster, READ, blind)
    whole["nodes"] = [*(whole["nodes"] or ()), virtual]
    agents = [calico_node(one) for one in recording.nodes]
    about = scene(whole, agents, [], blind, "crd.projectcalico.org/v1")
    found = judged(recording, about)
    assert (wrong(found), found["virtual"].mark) == ({}, "unknown")
    assert "Calico does not run on virtual" in sentences(found["virtual"])
    assert {found[name].mark for name in recording.nodes} == {"healthy"}


async def test_linux_nodes_beside_a_windows_node_are_judged_by_themselves(tmp_path: Path) -> None:
    recording = recorded(ALWAYS)
    resource(recording, "Node", "node-c")["metadata"].setdefault("labels", {})["kubernetes.io/os"] = "windows"
    about = await scene_of(recording, tmp_path)
    dark = Blind(node="node-c", look="probe", reason="a Windows node has no probe")
    found = judged(recording, about, node_c=[dark])
    assert {name: one.mark for name, one in found.items()} == {
        "node-a": "healthy", "node-b": "healthy", "node-c": "unknown",
    }  # fmt: skip
    assert "some routes of node-a are not judged: a node is a Windows node." in sentences(found["node-a"])


# ---- as calicoctl says it


@pytest.mark.parametrize("node", ["node-a", "node-b", "node-c"])
@pytest.mark.parametrize("state", [ALWAYS, "v3.31.7/healthy-crosssubnet-same-subnet"])
async def test_the_recorded_text_of_calicoctl_is_printed_word_for_word(state: str, node: str, tmp_path: Path) -> None:
    found = await all_of(recorded(state), tmp_path)
    printed = recorded_calicoctl.printed(f"{state}/calicoctl/node-status-{node}.txt")
    assert "\n".join(replies.calicoctl(found[node])) + "\n\n" == printed.text
    assert replies.text([found[node]], detailed=True).startswith(printed.text)


# As its documentation prints it; sessions with pods it leaves out.
AS_CALICOCTL = """\
Calico process is running.

IPv4 BGP status
+--------------+-------------------+-------+----------+-------------+
| PEER ADDRESS |     PEER TYPE     | STATE |  SINCE   |    INFO     |
+--------------+-------------------+-------+----------+-------------+
| 172.17.8.102 | node-to-node mesh | up    | 23:30:04 | Established |
| 10.20.30.40  | global            | start | 23:30:04 | Active      |
| 10.1.1.1     | local workload    | up    | 23:30:04 | Established |
+--------------+-------------------+-------+----------+-------------+
"""
AS_BIRD = """\
0001 BIRD v0.3.3+birdv1.6.8 ready.
2002-name     proto    table    state  since       info
1002-static1  Static   master   up     23:30:04
 kernel1  Kernel   master   up     23:30:04
 Mesh_172_17_8_102 BGP      master   up     23:30:04    Established
 Global_10_20_30_40 BGP      master   start  23:30:04    Active
 Local_Workload_10_1_1_1 BGP      master   up     23:30:04    Established
0000
"""


async def test_the_table_of_sessions_is_calicoctl_s_with_those_of_pods_besides(tmp_path: Path) -> None:
    told_so = [RUNS, *peers("node-a", 4, AS_BIRD, pods=True)]
    found = await of_bgp(changed(recorded(ALWAYS), (plain(),)), tmp_path, told_so)
    assert "\n".join(replies.calicoctl(found)) + "\n" == AS_CALICOCTL


async def test_no_peer_and_a_second_family_are_said_as_calicoctl_says_them(tmp_path: Path) -> None:
    recording = changed(recorded(DUALSTACK), (plain(),))
    six = Bird(node="node-a", family=6, seen=True, running=True, detail="BIRD v0.3.3 ready.")
    found = await of_bgp(recording, tmp_path, [RUNS, session(B), session(C), six], bgpconfigurations=OTHERS_OFF)
    assert replies.calicoctl(found)[-2:] == ["IPv6 BGP status", "No IPv6 peers found."]
    dead = msgspec.structs.replace(found, felix="no answer", felix_age_s=-1)
    assert replies.calicoctl(dead) == ["Calico process is not running."]


# ---- thousands of nodes


def many(count: int) -> tuple[dict[str, CalicoNode], list[Object]]:
    """Nodes of forty subnets, each with a block."""
    nodes, blocks = {}, []
    for number in range(count):
        name = f"node-{number:04}"
        nodes[name] = CalicoNode(
            name=name,
            address=f"172.{16 + number % 40}.{number // 250}.{number % 250 + 1}",
            subnet=f"172.{16 + number % 40}.0.0/16",
            internal_address="",
            tunnel_address=f"10.{number // 1024}.{number % 1024 // 4}.{number % 4 * 64}",
            tunnel_mac="",
            vxlan_expected=True,
        )
        cidr = f"10.{number // 1024}.{number % 1024 // 4}.{number % 4 * 64}/26"
        blocks.append({"cidr": cidr, "affinity": f"host:{name}", "allocations": [], "attributes": []})
    return nodes, blocks


def test_thousands_of_nodes_are_expected_of_in_seconds_and_asked_within_what_a_probe_takes() -> None:
    nodes, blocks = many(4000)
    pool = Pool(name="pool", cidr="10.0.0.0/8", block_size=26, vxlan_mode="CrossSubnet")
    settings = CalicoSettings(version="v3.32.1", group="crd.projectcalico.org/v1")
    began = time.process_time()
    expectations = Expectations(nodes, targets([pool], blocks, nodes, 4), settings)
    wanted = expectations.of("node-0123")
    assert time.process_time() - began < 10, "a table nobody waits for"
    assert len(wanted.routes) == 3999
    assert sum(not one.device for one in wanted.routes) == 99  # in its own subnet, where nothing tunnels
    asked = asks(Node(name="node-0123", families={4: nodes["node-0123"]}), {4: wanted})
    assert sum(len(one.routes) for one in asked) == 3999
    assert [one.felix for one in asked] == [True, False]
    assert all(len(msgspec.json.encode(one)) < LARGEST_ASK for one in asked)
    assert msgspec.json.decode(msgspec.json.encode(asked[0]), type=NodeAsk) == asked[0]


def test_of_thousands_the_table_shows_what_is_wrong_and_counts_the_rest() -> None:
    found = [Status(node=f"node-{number:04}", mark="healthy", answered=True) for number in range(5000)]
    found += [Status(node=f"bad-{number}", mark="cause", answered=True) for number in range(3)]
    found += [Status(node=f"dark-{number:03}", mark="unknown") for number in range(300)]
    lines = replies.text(found, detailed=False).splitlines()
    assert [line.split()[1] for line in lines[1:5]] == ["bad-0", "bad-1", "bad-2", "dark-000"]
    assert lines[-2:] == [
        "and 103 more nodes that are not ok (all of them: -o json|csv)",
        "and 5000 nodes that are ok (all of them: -o json|csv)",
    ]
    assert len(replies.rows(found)) == 5304
    assert len(replies.data(found, [], "test", "")["nodes"]) == 5303
    drawn = nodes_picture.picture(found, "test")
    assert drawn.count("<circle") == nodes_picture.CARDS + nodes_picture.TILES
    assert f"{5303 - nodes_picture.CARDS - nodes_picture.TILES} more nodes" in drawn


async def test_the_picture_is_whole_and_shows_what_is_wrong_first(tmp_path: Path) -> None:
    recording = recorded(ALWAYS)
    recording.nodes["node-c"].remove_link("vxlan.calico")
    found = list((await all_of(recording, tmp_path)).values())
    drawn = nodes_picture.picture(found, "prod <eu> & co")
    texts = [one.text for one in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
    assert texts[:3] == ["prod <eu> & co", "1 of 3 nodes are not as they should be.", "node-c"]
    assert "node-c has no device vxlan.calico, which its VXLAN pool needs." in " ".join(map(str, texts))
    assert png.render(drawn).startswith(b"\x89PNG")
    assert nodes_picture.picture([], "test") == ""


async def test_all_about_one_node_is_told_in_detail(tmp_path: Path) -> None:
    recording = changed(recorded(BORROWED), (ipip(), wireguard(without="node-b")))
    about = await scene_of(recording, tmp_path)
    machine = NodeMachine(node="node-a", kernel="6.12.1-generic", uptime_s=93784, probe="0.1.0")
    seen = [*seen_on(recording, about, "node-a"), machine]
    text = replies.text([judged_as(about, "node-a", seen)], detailed=True)
    assert "Kernel       6.12.1-generic, up 1d2h" in text
    assert "Tunnel       tunl0: up, MTU 1480, 10." in text
    assert "Tunnel       wireguard.cali: up, MTU 1440" in text
    assert "Routes IPv4  3 of 3 to other nodes' blocks; by device: " in text
    (held,) = [one for one in seen if isinstance(one, LinkAddresses) and one.device == "wireguard.cali"]
    assert held.addresses[0] in text
