"""What is said about both sides of a question, against a recorded Calico; and each sentence when nothing can be."""

from __future__ import annotations

import copy
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_asyncio

from bot.errors import COULD_NOT_JUDGE, WRONG_USAGE, UserError
from bot.sources import describe, ipam
from bot.sources.api import PAGE
from bot.words import parse
from engine.plan import plan
from facts import (
    AddressHolders,
    Allocation,
    Blind,
    CalicoNode,
    CalicoPod,
    CalicoSettings,
    Endpoint,
    Fact,
    Pool,
    PoolUsage,
    Question,
)
from tests.recorded import Object, World, objects, served

HEALTHY = "v3.32.1/healthy"
A1, B1 = "10.244.174.132", "10.244.218.68"
F = TypeVar("F", bound=Fact)


def of(facts: Sequence[Fact], kind: type[F], **fields: Any) -> list[F]:
    return [f for f in facts if isinstance(f, kind) and all(getattr(f, k) == v for k, v in fields.items())]


def only(facts: Sequence[Fact], kind: type[F], **fields: Any) -> F:
    (found,) = of(facts, kind, **fields)
    return found


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with served(objects(HEALTHY), tmp_path) as world:
        yield world


async def look(world: World, *words: str, **fields: Any) -> list[Fact]:
    async with world.cluster(**fields) as cluster:
        return await cluster.look(parse(words))


async def refused(world: World, *words: str, **fields: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        await look(world, *words, **fields)
    return caught.value


def pod(name: str, namespace: str = "shop", node: str = "node-a", **status: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "app", "image": "x"}], **({"nodeName": node} if node else {})},
        "status": status,
    }


# -- a healthy cluster -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["crd.projectcalico.org", "projectcalico.org"])
async def test_everything_known_of_two_pods_in_either_store(tmp_path: Path, group: str) -> None:
    async with served(objects(HEALTHY), tmp_path, group=group) as world:
        facts = await look(world, "default/pod-a1", "default/pod-b1", "80/tcp")
    version = {"crd.projectcalico.org": "v1", "projectcalico.org": "v3"}[group]
    assert only(facts, Question) == Question(source="default/pod-a1", target="default/pod-b1", protocol="tcp", port=80)
    assert only(facts, CalicoSettings) == CalicoSettings(version="v3.32.1", group=f"{group}/{version}")
    source = only(facts, Endpoint, name="default/pod-a1")
    assert (source.node, source.address, source.interface) == ("node-a", A1, "calidd33ceb84a6")
    assert (source.phase, source.ready, source.reason) == ("Running", True, "")
    assert source.container_id.startswith("748adf871bcd")
    node = only(facts, CalicoNode, name="node-a")
    assert (node.address, node.subnet, node.internal_address) == ("172.30.0.11", "172.30.0.0/24", "172.30.0.11")
    assert (node.tunnel_address, node.tunnel_mac) == ("10.244.174.128", "66:07:02:c1:cc:60")
    assert (node.vxlan_expected, node.ready, node.vni, node.route_refresh_s) == (True, True, 4096, 90)
    assert only(facts, Pool).cidr == "10.244.0.0/16"
    assert {one.address for one in of(facts, Allocation)} == {A1, B1, "10.244.174.128", "10.244.218.64"}
    mine = only(facts, Allocation, address=A1)
    assert (mine.found, mine.owner, mine.node, mine.block) == (True, "default/pod-a1", "node-a", "10.244.174.128/26")
    assert mine.handle.endswith(source.container_id)
    tunnel = only(facts, Allocation, address="10.244.218.64")
    assert (tunnel.owner_kind, tunnel.owner, tunnel.vxlan_mode) == ("vxlanTunnelAddress", "node-b", "Always")
    assert of(facts, Blind) == []
    assert [ask.node for ask in plan(facts)] == ["node-a", "node-b"]


async def test_one_question_is_a_handful_of_gets_however_large_the_cluster(tmp_path: Path) -> None:
    crowd = [pod(f"crowd-{i}", "default", phase="Running", podIP=f"10.9.{i // 250}.{i % 250}") for i in range(600)]
    async with served([*objects(HEALTHY), *crowd], tmp_path) as world:
        await look(world, "pod-a1", "pod-b1")
        calls = world.server.calls
        assert len(world.asked) <= 20 and len(set(map(str, world.asked))) == len(world.asked)
        # Who else has the two addresses, and the calico-node pods: of both nodes, and (none there) of any.
        assert sorted(call.resource for call in calls if call.verb == "list") == ["ippools", *["pods"] * 5]
    pods = [query for path, query in world.asked if path == "/api/v1/pods"]
    assert all(query.keys() >= {"fieldSelector"} or query.items() >= {"limit": 1}.items() for query in pods)


async def test_discovery_is_asked_once(world: World) -> None:
    async with world.cluster() as cluster:
        await cluster.look(parse(["pod-a1", "pod-b1"]))
        await cluster.look(parse(["pod-b1", "pod-a1"]))
    assert [path for path, _ in world.asked].count("/apis") == 1


async def test_the_group_can_be_set_by_hand(world: World) -> None:
    facts = await look(world, "pod-a1", "pod-b1", api_group="projectcalico.org/v3")
    assert only(facts, CalicoSettings).group == "projectcalico.org/v3"
    assert {blind.look for blind in of(facts, Blind)} >= {"ippools", "ipamblocks"}
    assert not of(facts, Allocation)
    error = await refused(world, "pod-a1", "pod-b1", api_group="calico/v1")
    assert "CALICO_API_GROUP" in error.sentence


async def test_felix_settings_of_a_node_go_before_those_of_all(world: World) -> None:
    world.change("felixconfigurations", "default", vxlanPort=4790, vxlanVNI=4097, routeRefreshInterval="1m30s")
    felix = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "FelixConfiguration",
        "metadata": {"name": "node.node-a"},
        "spec": {"vxlanPort": 8472, "healthPort": 9100, "interfacePrefix": "tap,cali", "wireguardEnabled": True},
    }
    world.store.create(felix)
    facts = await look(world, "pod-a1", "pod-b1")
    a, b = only(facts, CalicoNode, name="node-a"), only(facts, CalicoNode, name="node-b")
    assert (a.vxlan_port, a.vni, a.felix_health_port, a.interface_prefix, a.wireguard) == (
        8472,
        4097,
        9100,
        "tap",
        True,
    )
    assert (b.vxlan_port, b.vni, b.felix_health_port, b.interface_prefix, b.wireguard) == (
        4790,
        4097,
        9099,
        "cali",
        False,
    )
    assert only(facts, Endpoint, name="default/pod-a1").interface == "tapdd33ceb84a6"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"nodeSelector": "kubernetes.io/hostname == 'node-a'"}, (True, False)),
        ({"nodeSelector": "!has(gpu)"}, (True, True)),
        ({"nodeSelector": "nonsense("}, (False, False)),
        ({"disabled": True}, (False, False)),
        ({"vxlanMode": "Never"}, (False, False)),
        ({"vxlanMode": "CrossSubnet"}, (True, True)),
        ({"allowedUses": ["Workload"]}, (False, False)),
    ],
)
async def test_where_vxlan_is_to_be_expected(world: World, spec: Object, expected: tuple[bool, bool]) -> None:
    world.change("ippools", "default-ipv4-ippool", **spec)
    facts = await look(world, "pod-a1", "pod-b1")
    found = tuple(only(facts, CalicoNode, name=name).vxlan_expected for name in ("node-a", "node-b"))
    assert found == expected


async def test_annotations_that_are_missing_broken_or_set_by_hand(world: World) -> None:
    node = world.store.get("nodes", "node-a")
    annotations = node["metadata"]["annotations"]
    annotations["projectcalico.org/IPv4Address"] = "not an address"
    annotations["projectcalico.org/VXLANTunnelMACAddr"] = "66:AA:00:00:00:01"
    del annotations["projectcalico.org/IPv4VXLANTunnelAddr"]
    world.store.update(node)
    facts = await look(world, "pod-a1", "pod-b1")
    found = only(facts, CalicoNode, name="node-a")
    assert (found.address, found.subnet, found.tunnel_address, found.tunnel_mac) == ("", "", "", "66:aa:00:00:00:01")
    assert found.internal_address == "172.30.0.11"
    assert len(of(facts, Allocation)) == 3


# -- whose address ---------------------------------------------------------------------------------------------------


def block_with(world: World, **spec: Any) -> Object:
    block = world.store.get("ipamblocks", "10-244-174-128-26")
    block["spec"].update(spec)
    return block


async def test_a_block_of_another_size_than_the_pool_says_is_found(world: World) -> None:
    world.change("ippools", "default-ipv4-ippool", blockSize=29)
    found = only(await look(world, "pod-a1", "pod-b1"), Allocation, address=A1)
    assert (found.block, found.owner) == ("10.244.174.128/26", "default/pod-a1")


@pytest.mark.parametrize(("affinity", "node"), [("virtual:load-balancer", ""), (None, ""), ("host:node-c", "node-c")])
async def test_affinity_of_a_block(world: World, affinity: str | None, node: str) -> None:
    world.store.update(block_with(world, affinity=affinity))
    found = only(await look(world, "pod-a1", "pod-b1"), Allocation, address=A1)
    assert (found.found, found.block_node, found.node) == (True, node, "node-a")


async def test_an_address_of_a_virtual_machine_is_no_pods(world: World) -> None:
    block = block_with(world)
    block["spec"]["attributes"][block["spec"]["allocations"][4]]["secondary"] |= {"vmi-name": "vm", "pod": "before"}
    world.store.update(block)
    assert only(await look(world, "pod-a1", "pod-b1"), Allocation, address=A1).owner_kind == "virtualMachine"


async def test_an_address_in_cooldown_is_nobodys(world: World) -> None:
    block = block_with(world)
    index = block["spec"]["allocations"][4]
    block["spec"]["attributes"][index] = {"releasedAt": "2026-11-22T22:00:00Z"}
    world.store.update(block)
    found = only(await look(world, "pod-a1", "pod-b1"), Allocation, address=A1)
    assert (found.found, found.block, found.owner) == (False, "10.244.174.128/26", "")


async def test_a_freed_address_and_a_deleted_block(world: World) -> None:
    block = block_with(world)
    block["spec"]["allocations"][4] = None
    world.store.update(block)
    assert only(await look(world, "pod-a1", "pod-b1"), Allocation, address=A1).found is False
    world.store.update(block_with(world, deleted=True))
    gone = only(await look(world, "pod-a1", "pod-b1"), Allocation, address=A1)
    assert (gone.found, gone.block, gone.pool) == (False, "", "default-ipv4-ippool")


# -- which pod -------------------------------------------------------------------------------------------------------


async def test_a_bare_name_is_looked_for_in_the_own_namespace_then_everywhere(world: World) -> None:
    world.store.create(pod("lonely", "kube-public", phase="Running", podIP="10.9.9.9"))
    facts = await look(world, "lonely", "pod-b1")
    assert only(facts, Question).source == "kube-public/lonely"
    lists = [query for path, query in world.asked if path == "/api/v1/pods"]
    assert lists[0] == {"fieldSelector": "metadata.name=lonely", "limit": 20}


async def test_an_ambiguous_name_is_answered_with_its_candidates(world: World) -> None:
    for namespace in ("kube-public", "kube-system"):
        world.store.create(pod("twin", namespace))
    error = await refused(world, "twin", "pod-b1")
    assert "twin can mean 2 things: kube-public/twin (node-a), kube-system/twin (node-a)" in error.sentence
    assert (error.status, error.word, error.choices) == (WRONG_USAGE, "twin", ("kube-public/twin", "kube-system/twin"))


async def test_a_name_that_does_not_exist_is_answered_with_what_does(world: World) -> None:
    world.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mall"}})
    for name, node in (("cart-0", "node-a"), ("cart-1", "node-c"), ("other", "node-a")):
        world.store.create(pod(name, "mall", node))
    error = await refused(world, "mall/cart", "pod-b1")
    assert error.sentence == (
        "mall/cart does not exist; pods of that name: mall/cart-0 (node-a), mall/cart-1 (node-c)."
    )
    assert error.choices == ("mall/cart-0", "mall/cart-1")
    typo = await refused(world, "mall/othr", "pod-b1")
    assert "similar names in mall: mall/other (node-a)" in typo.sentence
    world.store.create(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "tills", "namespace": "mall"}, "spec": {}}
    )
    service = await refused(world, "pod-a1", "mall/till")
    assert "similar names in mall: mall/tills." in service.sentence and service.choices == ("mall/tills",)
    node = await refused(world, "nodea", "pod-b1")
    assert "similar names: node-a, " in node.sentence and node.choices[0] == "node-a"
    nothing = await refused(world, "mall/zzzz", "pod-b1")
    assert "mall/zzzz does not exist" in nothing.sentence and "kubectl get pods -n mall" in nothing.sentence
    nowhere = await refused(world, "nowhere/cart", "pod-b1")
    assert nowhere.sentence == "nowhere/cart does not exist: there is no namespace nowhere."
    assert all("limit" in query for path, query in world.asked if path.endswith(("/pods", "/services", "/ippools")))


async def test_an_address_is_the_pod_that_has_it_now(world: World) -> None:
    for name, phase in (("done", "Succeeded"), ("waiting", "Pending")):
        world.store.create(pod(name, "default", phase=phase, podIP=A1, podIPs=[{"ip": A1}]))
    facts = await look(world, A1, "pod-b1")
    assert only(facts, Question).source == "default/pod-a1"


async def test_node_service_and_foreign_addresses_are_named_for_what_they_are(world: World) -> None:
    system = pod("proxy", "kube-system", phase="Running", podIP="172.30.0.12", podIPs=[{"ip": "172.30.0.12"}])
    system["spec"]["hostNetwork"] = True
    system["spec"]["nodeName"] = "node-b"
    world.store.create(system)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80}]},
    }
    world.store.create(service)

    async def target(word: str, *asked: str) -> Endpoint:
        facts = await look(world, "pod-a1", word)
        assert [ask.node for ask in plan(facts)] == list(asked)
        return only(facts, Endpoint, name=only(facts, Question).target)

    assert (await target("node-b", "node-a", "node-b")) == Endpoint(
        name="node-b", kind="node", node="node-b", address="172.30.0.12", addresses=("172.30.0.12",)
    )
    assert (await target("172.30.0.12", "node-a", "node-b")).kind == "node"
    for word in ("default/db", "db", "10.96.0.9"):
        found = await target(word, "node-a")
        assert (found.kind, found.name, found.address) == ("service", "default/db", "10.96.0.9")
    foreign = await target("192.0.2.7", "node-a")
    assert (foreign.kind, foreign.address) == ("address", "192.0.2.7")
    unused = await target("10.244.0.9")
    assert (unused.kind, unused.address) == ("nobody", "10.244.0.9")
    host = await target("kube-system/proxy", "node-a", "node-b")
    assert (host.host_network, host.interface, host.kind) == (True, "", "pod")


async def test_an_address_of_a_tunnel_is_its_nodes(world: World) -> None:
    """It is what pods see of a node that sends to them, so it stands in their logs."""
    (tunnel,) = {
        one.tunnel_address for one in of(await look(world, "node-b", "pod-a1"), CalicoNode) if one.name == "node-b"
    }
    facts = await look(world, tunnel, "pod-a1")
    assert only(facts, Question).source == "node-b"
    assert only(facts, Endpoint, name="node-b").address == "172.30.0.12"
    error = await refused(world, "pod-a1", tunnel)
    assert f"{tunnel} is the address of node-b's tunnel" in error.sentence and error.choices == ("node-b",)


async def test_a_node_is_found_by_the_address_that_calico_alone_uses(world: World) -> None:
    node = world.store.get("nodes", "node-b")
    node["metadata"]["annotations"]["projectcalico.org/IPv4Address"] = "192.168.7.12/24"
    world.store.update(node)
    endpoint = only(await look(world, "pod-a1", "192.168.7.12"), Endpoint, name="node-b")
    assert (endpoint.kind, endpoint.address) == ("node", "192.168.7.12")


async def test_a_pod_and_itself_is_no_question(world: World) -> None:
    assert "never leaves it" in (await refused(world, "pod-a1", A1)).sentence


# -- pods that are not there -----------------------------------------------------------------------------------------


def said(name: str, reason: str, message: str, *, kind: str = "Warning", at: str = "2026-11-22T22:00:00Z") -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{reason.lower()}", "namespace": "shop"},
        "involvedObject": {"kind": "Pod", "name": name, "namespace": "shop", "uid": ""},
        "reason": reason,
        "message": message,
        "type": kind,
        "lastTimestamp": at,
    }


async def with_pod(world: World, made: Object, *events: Object) -> Endpoint:
    created = world.store.create(made)
    for one in events:
        one["involvedObject"]["uid"] = created["metadata"]["uid"]
        world.store.create(one)
    name = f"shop/{made['metadata']['name']}"
    return only(await look(world, name, "pod-b1"), Endpoint, name=name)


STARTING = [{"name": "app", "state": {"waiting": {"reason": "ContainerCreating"}}}]


async def test_the_newest_warning_says_why_a_pod_waits(world: World) -> None:
    endpoint = await with_pod(
        world,
        pod("late", phase="Pending", containerStatuses=STARTING),
        said("late", "Scheduled", "assigned", kind="Normal", at="2026-11-22T23:00:00Z"),
        said("late", "FailedMount", "older", at="2026-11-22T21:00:00Z"),
        said("late", "FailedCreatePodSandBox", "No IPs available in pools: [10.244.0.0/16]"),
    )
    assert endpoint.reason == "FailedCreatePodSandBox: No IPs available in pools: [10.244.0.0/16]"
    assert (endpoint.address, endpoint.phase, endpoint.node) == ("", "Pending", "node-a")


async def test_without_an_event_the_container_says_it(world: World) -> None:
    assert (
        await with_pod(world, pod("mute", phase="Pending", containerStatuses=STARTING))
    ).reason == "ContainerCreating"


async def test_a_container_that_cannot_run_says_why(world: World) -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    endpoint = await with_pod(
        world, pod("pull", phase="Pending", podIP="10.9.9.1", containerStatuses=[{"name": "app", "state": waiting}])
    )
    assert endpoint.reason == "container app: ImagePullBackOff: no such image"


async def test_an_unscheduled_and_an_evicted_pod(world: World) -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    unscheduled = await with_pod(world, pod("homeless", node="", phase="Pending", conditions=[condition]))
    assert (unscheduled.node, unscheduled.reason) == ("", "Unschedulable: 0/3 nodes")
    evicted = await with_pod(
        world, pod("evicted", phase="Failed", reason="Evicted", message="low on memory", podIP=B1, podIPs=[{"ip": B1}])
    )
    assert (evicted.phase, evicted.reason, evicted.address) == ("Failed", "Evicted: low on memory", "")


async def test_events_of_a_running_pod_are_not_asked_for(world: World) -> None:
    await look(world, "pod-a1", "pod-b1")
    assert not [path for path, _ in world.asked if path.endswith("/events")]


async def test_the_address_in_the_annotation_counts_until_the_pod_is_torn_down(world: World) -> None:
    made = pod("young", phase="Running")
    made["metadata"]["annotations"] = {"cni.projectcalico.org/podIPs": "10.244.174.150/32"}
    assert (await with_pod(world, made)).address == "10.244.174.150"


async def test_a_pod_that_is_merely_being_created_has_nothing_against_it(world: World) -> None:
    """Nor has one that had to wait for a node first."""
    young = await with_pod(
        world,
        pod("young", phase="Pending", containerStatuses=STARTING),
        said("young", "FailedScheduling", "0/3 nodes are available"),
        said("young", "Scheduled", "assigned", kind="Normal"),
    )
    assert (young.starting, young.network_failure, young.reason) == (
        True,
        "",
        "FailedScheduling: 0/3 nodes are available",
    )
    failed = await with_pod(
        world,
        pod("failed", phase="Pending", containerStatuses=STARTING),
        said("failed", "FailedCreatePodSandBox", "Unauthorized"),
    )
    assert (failed.starting, failed.network_failure) == (False, "FailedCreatePodSandBox: Unauthorized")
    pull = [{"name": "app", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]
    assert not (await with_pod(world, pod("pull", phase="Pending", containerStatuses=pull))).starting
    assert not (await with_pod(world, pod("homeless", node="", phase="Pending"))).starting


async def test_who_has_an_address_now(world: World) -> None:
    """Not those that are done, leaving, waiting, or on a node's own network; two pods of one migrating machine are."""
    for name, phase in (("done", "Succeeded"), ("waiting", "Pending"), ("twin", "Running")):
        world.store.create(pod(name, "default", phase=phase, podIP=A1, podIPs=[{"ip": A1}]))
    leaving = pod("leaving", "default", phase="Running", podIP=A1, podIPs=[{"ip": A1}])
    leaving["metadata"]["finalizers"] = ["example.com/hold"]
    world.store.create(leaving)
    world.store.delete("pods", "leaving", "default")
    host = pod("host", "default", phase="Running", podIP=A1, podIPs=[{"ip": A1}])
    host["spec"]["hostNetwork"] = True
    world.store.create(host)
    holders = only(await look(world, "default/pod-a1", "pod-b1"), AddressHolders, address=A1)
    assert (holders.pods, holders.machine) == (("default/pod-a1", "default/twin"), "")
    owner = [{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "vm", "uid": "u"}]
    machines = [pod(f"launcher-{i}") for i in range(2)]
    for one in machines:
        one["metadata"]["ownerReferences"] = owner
        one["status"] = {"phase": "Running"}
    assert describe.address_holders(A1, machines).machine == "shop/vm"
    assert describe.address_holders(A1, [*machines, pod("other", phase="Running")]).machine == ""


def calico_node(name: str, node: str, *, state: str = "running", phase: str = "Running") -> Object:
    made = pod(
        name, "kube-system", node, phase=phase, containerStatuses=[{"name": "calico-node", "state": {state: {}}}]
    )
    made["metadata"]["labels"] = {"k8s-app": "calico-node"}
    return made


async def test_calicos_own_pods(world: World) -> None:
    """Nothing is said where Calico runs in another way, as in this recording; lacking one is news beside others."""
    assert of(await look(world, "pod-a1", "pod-b1"), CalicoPod) == []
    world.store.create(calico_node("calico-node-c", "node-c"))
    found = of(await look(world, "pod-a1", "pod-b1"), CalicoPod)
    assert found == [CalicoPod(node="node-a", running=False), CalicoPod(node="node-b", running=False)]
    world.store.create(calico_node("calico-node-a-old", "node-a", state="terminated"))
    world.store.create(calico_node("calico-node-a", "node-a"))
    world.store.create(calico_node("calico-node-b", "node-b", state="waiting"))
    facts = await look(world, "pod-a1", "pod-b1")
    a, b = only(facts, CalicoPod, node="node-a"), only(facts, CalicoPod, node="node-b")
    assert (a.running, a.name, b.running, b.name, b.reason) == (
        True,
        "kube-system/calico-node-a",
        False,
        "kube-system/calico-node-b",
        "none of its containers runs",
    )


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"status": "True", "reason": "KubeletReady", "message": "is ready"}, (True, "")),
        ({"status": "Unknown", "reason": "NodeStatusUnknown"}, (False, "NodeStatusUnknown")),
        ({"status": "False"}, (False, "False")),
    ],
)
async def test_whether_a_node_is_ready(world: World, condition: Object, expected: tuple[bool, str]) -> None:
    node = world.store.get("nodes", "node-a")
    node["status"]["conditions"] = [{"type": "Ready", **condition}]
    world.store.update_status(node)
    found = only(await look(world, "pod-a1", "pod-b1"), CalicoNode, name="node-a")
    assert (found.ready, found.unready) == expected


# -- pools without room ----------------------------------------------------------------------------------------------


async def usage(tmp_path: Path, state: str, node: str, **spec: Any) -> list[PoolUsage]:
    async with served(objects(state), tmp_path) as world:
        if spec:
            world.change("ipamconfigs", "default", **spec)
        world.store.create(pod("hungry", "default", node, phase="Pending", containerStatuses=STARTING))
        facts = await look(world, "default/hungry", "192.0.2.1")
        assert of(facts, Blind) == []
        pages = [query for path, query in world.asked if path.endswith("/ipamblocks")]
        assert pages and all(query["limit"] == PAGE for query in pages)
        return of(facts, PoolUsage)


async def test_a_roomy_pool_is_not_exhausted(tmp_path: Path) -> None:
    (found,) = await usage(tmp_path, HEALTHY, "node-a")
    assert (found.addresses, found.blocks_possible, found.blocks_taken, found.nodes) == (65536, 1024, 3, 3)
    assert found.exhausted is False


async def test_blocks_gone_but_addresses_to_borrow(tmp_path: Path) -> None:
    (found,) = await usage(tmp_path, "v3.32.1/exhaustion/2-pods-borrowed", "node-c")
    assert (found.blocks_possible, found.blocks_taken, found.free_on_node, found.addresses) == (2, 2, 0, 128)
    assert found.free_elsewhere > 100 and found.exhausted is False


async def test_strict_affinity_without_a_block_of_its_own(tmp_path: Path) -> None:
    (found,) = await usage(tmp_path, "v3.32.1/exhaustion/3-strict-affinity", "node-c")
    assert (found.strict_affinity, found.free_on_node, found.exhausted) == (True, 0, True)
    assert (found.forbids, found.forbidden) == ("strict_affinity", found.free_elsewhere)
    (elsewhere,) = await usage(tmp_path, "v3.32.1/exhaustion/3-strict-affinity", "node-a")
    assert elsewhere.free_on_node > 0 and elsewhere.exhausted is False


async def test_a_full_pool_is_exhausted_for_everybody(tmp_path: Path) -> None:
    (found,) = await usage(tmp_path, "v3.32.1/exhaustion/7-pool-full", "node-c", strictAffinity=False)
    assert (found.free_on_node, found.free_elsewhere, found.exhausted) == (0, 0, True)


async def test_a_node_with_as_many_full_blocks_as_it_may_have(tmp_path: Path) -> None:
    (full,) = await usage(tmp_path, HEALTHY, "node-c", maxBlocksPerHost=1)
    assert (full.blocks_on_node, full.block_limit, full.exhausted) == (1, 1, False)  # its one block has room
    (borrower,) = await usage(tmp_path, "v3.32.1/exhaustion/2-pods-borrowed", "node-c")
    assert (borrower.blocks_on_node, borrower.block_limit) == (0, 20)


async def test_a_node_that_takes_no_block_by_itself_lacks_an_address_once_its_own_are_full(tmp_path: Path) -> None:
    settings = {"autoAllocateBlocks": False, "strictAffinity": True}
    (own,) = await usage(tmp_path, HEALTHY, "node-a", **settings)
    assert (own.exhausted, own.forbids) == (False, "")
    (without,) = await usage(tmp_path, "v3.32.1/exhaustion/2-pods-borrowed", "node-c", **settings)
    assert (without.exhausted, without.forbids, without.forbidden) == (True, "auto_allocate", 121)


def full_block(cidr: str, node: str) -> Object:
    return {"cidr": cidr, "affinity": f"host:{node}", "allocations": [0] * 64, "attributes": [{}], "unallocated": []}


@pytest.mark.parametrize(
    ("limit", "strict", "other", "forbids", "forbidden"),
    [
        (1, True, [], "block_limit", 64),  # a block is left, and it may have no second
        (1, False, [0], "block_limit", 1),  # at its limit Calico does not even try to borrow
        (2, True, [0, 1], "strict_affinity", 2),
        (2, False, [], "", 0),  # nothing is left for anybody
        (2, True, [], "", 0),
    ],
)
def test_one_thing_forbids_what_is_left(
    limit: int, strict: bool, other: list[int], forbids: str, forbidden: int
) -> None:
    pool = Pool(name="small", cidr="10.9.0.0/25", block_size=26)
    blocks = [full_block("10.9.0.0/26", "node-a")]
    if (limit, strict) != (1, True):
        blocks.append(full_block("10.9.0.64/26", "node-b") | {"unallocated": other})
    found = ipam.usage(
        pool, "node-a", blocks, [], nodes=2, version="v3.31.0", strict_affinity=strict, block_limit=limit
    )
    assert (found.exhausted, found.forbids, found.forbidden) == (True, forbids, forbidden)


def test_a_node_lacks_an_address_only_when_all_its_pools_do() -> None:
    blocks = [full_block("10.9.0.0/26", "node-a"), full_block("10.9.0.64/26", "node-b") | {"unallocated": [7]}]

    def pools(*cidrs: str, strict: bool) -> list[PoolUsage]:
        return ipam.together(
            [
                ipam.usage(
                    Pool(name=cidr, cidr=cidr, block_size=26), "node-a", blocks, [],
                    nodes=2, version="v3.31.0", strict_affinity=strict,
                )
                for cidr in cidrs
            ]
        )  # fmt: skip

    strict = pools("10.9.0.0/26", "10.9.0.64/26", strict=True)
    assert [(one.forbids, one.forbidden, one.other_pool) for one in strict] == [("strict_affinity", 1, False)] * 2
    roomy = pools("10.9.0.0/26", "10.9.1.0/26", strict=True)
    assert [(one.exhausted, one.forbids, one.other_pool) for one in roomy] == [(True, "", True), (False, "", False)]


async def test_reserved_addresses_are_not_free(tmp_path: Path) -> None:
    async with served(objects("v3.32.1/exhaustion/2-pods-borrowed"), tmp_path) as world:
        reservation = {
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "IPReservation",
            "metadata": {"name": "all"},
            "spec": {"reservedCIDRs": ["10.245.0.0/25", "fd00::/64"]},
        }
        world.store.create(reservation)
        world.store.create(pod("hungry", "default", "node-a", phase="Pending"))
        (found,) = of(await look(world, "default/hungry", "192.0.2.1"), PoolUsage)
    assert (found.free_on_node, found.free_elsewhere, found.exhausted) == (0, 0, True)


async def test_a_pool_for_other_namespaces_is_not_counted(tmp_path: Path) -> None:
    async with served(objects(HEALTHY), tmp_path) as world:
        world.change("ippools", "default-ipv4-ippool", namespaceSelector="team == 'x'")
        world.store.create(pod("hungry", "default", "node-a", phase="Pending"))
        none = only(await look(world, "default/hungry", "192.0.2.1"), PoolUsage)
        assert (none.pool, none.node, none.exhausted) == ("", "node-a", False)
        namespace = world.store.get("namespaces", "default")
        namespace["metadata"].setdefault("labels", {})["team"] = "x"
        world.store.update(namespace)
        assert only(await look(world, "default/hungry", "192.0.2.1"), PoolUsage).pool == "default-ipv4-ippool"


# -- what cannot be read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resource", "lost"),
    [
        ("clusterinformations", ()),
        ("ipamconfigs", ()),
        ("felixconfigurations", ()),
        ("ippools", (Pool,)),
        ("ipamblocks", (Allocation,)),
        ("nodes", (CalicoNode,)),
    ],
)
async def test_a_missing_permission_blinds_one_look_and_no_other(
    tmp_path: Path, resource: str, lost: tuple[type[Fact], ...]
) -> None:
    less = frozenset({("*", "*", resource)})
    async with served(objects(HEALTHY), tmp_path, denied={"half": less}) as world:
        whole = await look(world, "pod-a1", "pod-b1")
        facts = await look(world, "pod-a1", "pod-b1", token="half")
    assert {blind.look for blind in of(facts, Blind)} == {resource}
    assert all("forbidden" in blind.reason for blind in of(facts, Blind))
    for kind in (Question, Endpoint, CalicoSettings, Pool, CalicoNode, Allocation):
        assert not of(facts, kind) if kind in lost else len(of(facts, kind)) >= 1
    assert of(whole, Blind) == []


async def test_events_that_may_not_be_read_are_told(tmp_path: Path) -> None:
    less = frozenset({("*", "*", "events")})
    async with served(objects(HEALTHY), tmp_path, denied={"half": less}) as world:
        world.store.create(pod("late", phase="Pending"))
        facts = await look(world, "shop/late", "pod-b1", token="half")
    assert only(facts, Blind).look == "events"


async def test_a_node_that_is_gone_is_blind_not_missing_a_tunnel(world: World) -> None:
    world.store.delete("nodes", "node-b")
    facts = await look(world, "pod-a1", "pod-b1")
    assert [node.name for node in of(facts, CalicoNode)] == ["node-a"]
    blind = only(facts, Blind)
    assert (blind.node, blind.look, blind.reason) == ("node-b", "nodes", "there is no node node-b in the API")


async def test_objects_that_are_absent_mean_calicos_defaults(tmp_path: Path) -> None:
    kinds = ("ClusterInformation", "IPAMConfig", "FelixConfiguration")
    async with served([one for one in objects(HEALTHY) if one["kind"] not in kinds], tmp_path) as world:
        facts = await look(world, "pod-a1", "pod-b1")
    assert only(facts, CalicoSettings) == CalicoSettings(version="", group="crd.projectcalico.org/v1")
    assert only(facts, CalicoNode, name="node-a").vxlan_port == 4789
    assert of(facts, Blind) == []


async def test_without_permission_on_pods_there_is_no_question(tmp_path: Path) -> None:
    less = frozenset({("*", "*", "pods")})
    async with served(objects(HEALTHY), tmp_path, denied={"blind": less}) as world:
        for word in ("default/pod-a1", "pod-a1", A1):
            error = await refused(world, word, "pod-b1", token="blind")
            assert error.status == COULD_NOT_JUDGE
            assert "may not read the pods" in error.sentence and "get and list on pods" in error.sentence


async def test_a_node_that_may_not_be_read_is_not_called_missing(tmp_path: Path) -> None:
    less = frozenset({("*", "*", "nodes")})
    async with served(objects(HEALTHY), tmp_path, denied={"half": less}) as world:
        error = await refused(world, "pod-a1", "node-b", token="half")
    assert error.status == COULD_NOT_JUDGE
    assert "node-b is no pod, and whether it is a node could not be seen: nodes: " in error.sentence
    assert "get and list on nodes" in error.sentence


async def test_credentials_nobody_knows(world: World) -> None:
    error = await refused(world, "pod-a1", "pod-b1", token="forged")
    assert error.status == COULD_NOT_JUDGE
    assert "does not accept these credentials (401)" in error.sentence and world.url in error.sentence


async def test_not_a_calico_cluster(tmp_path: Path) -> None:
    plain = [one for one in objects(HEALTHY) if "projectcalico" not in one["apiVersion"]]
    async with served(plain, tmp_path, group="") as world:
        error = await refused(world, "pod-a1", "pod-b1")
    assert error.status == COULD_NOT_JUDGE
    assert "is not a Calico cluster" in error.sentence and "KUBECONFIG" in error.sentence
    assert "etcd of its own" in error.sentence


async def test_an_api_server_that_is_not_there(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    error = await refused(world, "pod-a1", "pod-b1", url=f"http://127.0.0.1:{port}")
    assert error.status == COULD_NOT_JUDGE
    assert "cannot be reached" in error.sentence and "refused" in error.sentence.lower()
    assert "Traceback" not in error.sentence and "ClientConnector" not in error.sentence


async def test_a_server_that_does_not_answer_in_time(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        cluster = await _entered(world, url, timeout_s=0.2)
        try:
            with pytest.raises(UserError, match=r"did not answer within 0\.2 s"):
                await cluster.look(parse(["pod-a1", "pod-b1"]))
        finally:
            await cluster.__aexit__(None, None, None)


async def _entered(world: World, url: str, timeout_s: float) -> Any:
    from bot.sources.kubernetes import Cluster

    return await Cluster(world.settings(url=url), timeout_s=timeout_s).__aenter__()


@pytest.mark.parametrize(
    ("content", "told"), [(None, "There is no kubeconfig"), ("{}", "cannot be used"), ("\x00", "cannot be used")]
)
async def test_a_kubeconfig_that_is_none(tmp_path: Path, content: str | None, told: str) -> None:
    from bot.settings import Settings
    from bot.sources.kubernetes import Cluster

    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=told) as caught:
        await Cluster(Settings(kubeconfig=str(path))).__aenter__()
    assert caught.value.status == COULD_NOT_JUDGE and str(path) in caught.value.sentence


async def test_the_cluster_is_called_as_the_context_or_as_told(world: World) -> None:
    async with world.cluster() as cluster:
        assert cluster.name == "calico-why-lab"
    async with world.cluster(cluster="prod-eu-1") as cluster:
        assert cluster.name == "prod-eu-1"


async def test_numbers_are_exact(world: World) -> None:
    """A sequence number has 61 bits; as a float it would lose the last eight."""
    block = world.store.get("ipamblocks", "10-244-174-128-26")
    async with world.cluster() as cluster:
        read = await cluster.api.get("/apis/crd.projectcalico.org/v1/ipamblocks/10-244-174-128-26")
    assert read["spec"]["sequenceNumber"] == block["spec"]["sequenceNumber"] > 2**60
    assert isinstance(read["spec"]["sequenceNumber"], int)


async def test_other_recordings_are_read_whole(tmp_path: Path) -> None:
    for state in ("v3.31.7/healthy-always", "v3.32.1/crosssubnet", "master-87c15906f20c/healthy"):
        recorded = objects(state)
        pods = [one for one in recorded if one["kind"] == "Pod" and one["spec"].get("nodeName") in ("node-a", "node-b")]
        names = {one["spec"]["nodeName"]: f"{one['metadata']['namespace']}/{one['metadata']['name']}" for one in pods}
        async with served(copy.deepcopy(recorded), tmp_path) as world:
            facts = await look(world, names["node-a"], names["node-b"])
        assert of(facts, Blind) == [], state
        assert len(of(facts, Allocation, found=True)) == 4, state
        assert len(plan(facts)) == 2, state
