"""What is said about a Service as the target, against a recorded cluster whose kube-proxy was recorded too."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_asyncio

from bot.errors import COULD_NOT_JUDGE, UserError
from bot.words import parse
from engine.plan import plan
from facts import Allocation, Backend, Blind, CalicoNode, Endpoint, Fact, Question, ServicePort
from tests.recorded import Object, World, served
from tests.recordings import load

CLUSTER, RECORDED = "v3.32.1/dualstack/healthy", "v3.32.1/loose"
F = TypeVar("F", bound=Fact)


def of(facts: Sequence[Fact], kind: type[F], **fields: Any) -> list[F]:
    return [f for f in facts if isinstance(f, kind) and all(getattr(f, k) == v for k, v in fields.items())]


def only(facts: Sequence[Fact], kind: type[F], **fields: Any) -> F:
    (found,) = of(facts, kind, **fields)
    return found


def resources() -> list[Object]:
    """A dual stack cluster, and the thirteen Services that were tried in it; the caller's to change."""
    files = [
        *(content for name, content in load(CLUSTER).items() if name.startswith(("k8s/", "cr/"))),
        *(load(RECORDED)[f"services/objects/{name}.json"] for name in ("services", "endpointslices")),
    ]
    return copy.deepcopy([one for file in files for one in file["items"]])


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    denied = {"limited": ("*", "discovery.k8s.io", "endpointslices"), "serviceless": ("*", "", "services")}
    async with served(resources(), tmp_path, denied={name: frozenset({one}) for name, one in denied.items()}) as world:
        yield world


async def look(world: World, *words: str, **fields: Any) -> list[Fact]:
    async with world.cluster(**fields) as cluster:
        return await cluster.look(parse(words))


async def refused(world: World, *words: str) -> UserError:
    with pytest.raises(UserError) as caught:
        await look(world, *words)
    return caught.value


def service(name: str, **spec: Any) -> Object:
    ports = [{"name": "web", "port": 80, "protocol": "TCP", "targetPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": "10.96.0.70", "ports": ports, "selector": {"app": name}, **spec},
    }


def end(address: str, pod: str = "", node: str = "", *, hints: Object | None = None, **conditions: bool) -> Object:
    found: Object = {"addresses": [address], "conditions": conditions}
    if node:
        found["nodeName"] = node
    if pod:
        found["targetRef"] = {"kind": "Pod", "namespace": "default", "name": pod}
    return {**found, **({"hints": hints} if hints else {})}


def slice_of(name: str, *ends: Object, port: int = 8080, family: int = 4, number: int = 1) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-{family}{number}",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": f"IPv{family}",
        "endpoints": list(ends),
        "ports": [{"name": "web", "port": port, "protocol": "TCP"}],
    }


A1, B1, C1 = (
    ("10.244.174.129", "pod-a1", "node-a"),
    ("10.244.218.65", "pod-b1", "node-b"),
    ("10.244.99.193", "pod-c1", "node-c"),
)


async def test_everything_known_of_a_service_and_its_endpoints(world: World) -> None:
    facts = await look(world, "pod-a2", "svc-ok", "80/tcp")
    assert only(facts, Question) == Question(source="default/pod-a2", target="default/svc-ok", protocol="tcp", port=80)
    assert only(facts, ServicePort) == ServicePort(
        service="default/svc-ok",
        address="10.96.0.50",
        protocol="tcp",
        port=80,
        target_port="8080",
        ports=("80/tcp",),
        ready=2,
        nodes=("node-a", "node-b"),
        node="node-a",
    )
    assert {(one.address, one.endpoint, one.port, one.used) for one in of(facts, Backend)} == {
        (A1[0], "default/pod-a1", 8080, True),
        (B1[0], "default/pod-b1", 8080, True),
    }
    endpoint = only(facts, Endpoint, name="default/pod-b1")
    assert (endpoint.kind, endpoint.node, endpoint.interface[:4]) == ("pod", "node-b", "cali")
    assert {one.name for one in of(facts, CalicoNode)} == {"node-a", "node-b"}
    assert {one.owner for one in of(facts, Allocation)} >= {"default/pod-a1", "default/pod-a2", "default/pod-b1"}
    assert of(facts, Blind) == []
    assert {ask.node for ask in plan(facts)} == {"node-a", "node-b"}


async def test_a_service_is_found_by_its_cluster_ip_and_by_its_only_port(world: World) -> None:
    for words in (("pod-a2", "10.96.0.50"), ("pod-a2", "default/svc-ok"), ("pod-a2", "svc-ok", "80/tcp")):
        question = only(await look(world, *words), Question)
        assert (question.target, question.protocol, question.port) == ("default/svc-ok", "tcp", 80)


async def test_a_service_is_found_by_its_name_in_dns_as_are_the_pods_behind_it(world: World) -> None:
    for word in ("svc-ok.default.svc", "svc-ok.default.svc.cluster.local"):
        assert only(await look(world, "pod-a2", word), Question).target == "default/svc-ok"
    pod = only(await look(world, "pod-a2", "pod-b1.svc-ok.default.svc.cluster.local"), Question)
    assert (pod.target, pod.port) == ("default/pod-b1", 0)
    error = await refused(world, "pod-a2", "none.default.svc.cluster.local")
    assert error.sentence.startswith("default/none does not exist")


async def test_a_node_goes_before_a_service_of_its_name(world: World) -> None:
    world.store.create(service("node-b"))
    assert only(await look(world, "pod-a2", "node-b"), Endpoint, name="node-b").kind == "node"


async def test_one_service_is_a_handful_of_gets(world: World) -> None:
    await look(world, "pod-a2", "svc-ok")
    lists = [(path, query) for path, query in world.asked if path.endswith("/endpointslices")]
    assert [query["labelSelector"] for _, query in lists] == ["kubernetes.io/service-name=svc-ok"]
    assert lists[0][0] == "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    assert len(world.asked) == len(set(map(str, world.asked))) <= 36


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("svc-none", {"ready": 0, "nodes": ()}),
        ("svc-noslice", {"ready": 0, "nodes": ()}),
        ("svc-notready", {"ready": 0, "nodes": (), "waiting": ("default/pod-b1",)}),
        ("svc-intlocal", {"ready": 1, "nodes": ("node-b",), "local": True}),
        ("svc-local", {"ready": 1, "node_port": 30081, "external_policy": "Local", "local": False}),
        ("svc-wrongport", {"ready": 1, "nodes": ("node-b",)}),
    ],
)
async def test_the_recorded_services(world: World, name: str, fields: dict[str, Any]) -> None:
    port = only(await look(world, "pod-a2", name), ServicePort)
    assert {field: getattr(port, field) for field in fields} == fields


async def test_a_node_port_is_its_services_and_packets_go_on_from_that_node(world: World) -> None:
    facts = await look(world, "pod-a2", "node-c", "30080/tcp")
    question = only(facts, Question)
    assert (question.target, question.port, question.service) == ("node-c", 30080, "default/svc-np")
    port = only(facts, ServicePort)
    assert (port.address, port.port, port.by_node_port, port.node, port.local) == (
        "172.30.0.13",
        30080,
        True,
        "node-c",
        False,
    )
    assert [(one.sender, one.endpoint, one.port) for one in of(facts, Backend)] == [("node-c", "default/pod-b1", 8080)]
    asks = {(ask.node, ask.family): ask for ask in plan(facts)}
    assert {node for node, _ in asks} == {"node-a", "node-b", "node-c"}
    tcp = {(node, one.target, one.port) for (node, _), ask in asks.items() for one in ask.send if one.protocol == "tcp"}
    assert tcp == {("node-a", "172.30.0.13", 30080), ("node-c", B1[0], 8080)}
    assert all(one.port != 30080 for ask in asks.values() for one in ask.own_ports)


async def test_the_policy_for_clients_of_other_nodes_is_the_external_one(world: World) -> None:
    elsewhere = await look(world, "pod-a2", "node-c", "30081/tcp")
    assert only(elsewhere, ServicePort).local and not only(elsewhere, Backend).used
    own = await look(world, "pod-c2", "node-c", "30081/tcp")  # on that very node
    assert not only(own, ServicePort).local and only(own, Backend).used


@pytest.mark.parametrize("words", [("node-c", "30999/tcp"), ("node-c", "80/tcp"), ("node-c", "30080/udp"), ("node-c",)])
async def test_a_nodes_own_port_is_no_services(world: World, words: tuple[str, ...]) -> None:
    facts = await look(world, "pod-a2", *words)
    assert only(facts, Question).service == "" and of(facts, ServicePort) == []


def balanced(name: str, *addresses: str, number: int = 80, **spec: Any) -> Object:
    ports = [{"name": "web", "port": number, "protocol": "TCP", "targetPort": 8080}]
    ingress = [{"ip": one, "ipMode": "VIP"} for one in addresses]
    found = service(name, type="LoadBalancer", ports=ports, **spec)
    return {**found, "status": {"loadBalancer": {"ingress": ingress}}}


@pytest.mark.parametrize(
    ("address", "pool"), [("203.0.113.7", ""), ("203.0.113.7", "203.0.113.0/24"), ("198.51.100.9", "")]
)
async def test_a_load_balancers_and_an_external_address_are_the_services(world: World, address: str, pool: str) -> None:
    """kube-proxy of the client's own node makes an endpoint's address of it, wherever that endpoint is."""
    if pool:  # Calico gives them out itself
        (template, *_) = [one for one in resources() if one["kind"] == "IPPool"]
        spec = {**template["spec"], "cidr": pool, "allowedUses": ["LoadBalancer"], "vxlanMode": "Never"}
        world.store.create({**template, "metadata": {"name": "balancers"}, "spec": spec})
    policies = {"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"}
    world.store.create(balanced("web", "203.0.113.7", externalIPs=["198.51.100.9"], **policies))
    world.store.create(slice_of("web", end(B1[0], B1[1], B1[2])))
    facts = await look(world, "pod-a2", address)
    assert only(facts, Question) == Question(
        source="default/pod-a2", target="default/web", protocol="tcp", port=80, family=4
    )
    port = only(facts, ServicePort)
    assert (port.address, port.port, port.kind, port.local, port.by_node_port) == (
        address, 80, "LoadBalancer", False, False,
    )  # fmt: skip
    assert [(one.sender, one.endpoint, one.used) for one in of(facts, Backend)] == [
        ("default/pod-a2", "default/pod-b1", True)
    ]
    assert {one.kind for one in of(facts, Endpoint)} == {"pod", "service"}
    sent = [(ask.node, one.target, one.port) for ask in plan(facts) for one in ask.send if one.target == address]
    assert sent == [("node-a", address, 80)]


async def test_what_the_load_balancer_is_to_have_itself_is_an_address_outside(world: World) -> None:
    proxied = balanced("web", "203.0.113.7")
    proxied["status"]["loadBalancer"]["ingress"][0]["ipMode"] = "Proxy"
    world.store.create(proxied)
    facts = await look(world, "pod-a2", "203.0.113.7", "80/tcp")
    assert only(facts, Endpoint, name="203.0.113.7").kind == "address"
    assert of(facts, ServicePort) == []


async def test_a_services_second_address_is_found_too(world: World) -> None:
    world.store.create(service("second", clusterIP="fd00:10:96::70", clusterIPs=["fd00:10:96::70", "10.96.0.71"]))
    assert only(await look(world, "pod-a2", "10.96.0.71"), Question).target == "default/second"


async def test_of_services_that_share_an_address_the_port_tells_which_is_meant(world: World) -> None:
    for name, number in (("one", 80), ("two", 443)):
        world.store.create(balanced(name, "203.0.113.7", number=number))
        world.store.create(slice_of(name, end(B1[0], B1[1], B1[2])))
    assert only(await look(world, "pod-a2", "203.0.113.7", "443/tcp"), Question).target == "default/two"
    for words in (("203.0.113.7",), ("203.0.113.7", "8443/tcp")):
        error = await refused(world, "pod-a2", *words)
        assert "is an address of 2 Services: default/one (80/tcp), default/two (443/tcp)." in error.sentence


async def test_a_nodes_address_may_be_a_load_balancers_for_its_ports(world: World) -> None:
    """As k3s gives them out: the nodes' own."""
    world.store.create(balanced("ingress", "172.30.0.12", "172.30.0.13"))
    world.store.create(slice_of("ingress", end(B1[0], B1[1], B1[2])))
    facts = await look(world, "pod-a2", "node-c", "80/tcp")
    assert (only(facts, Question).target, only(facts, ServicePort).address) == ("default/ingress", "172.30.0.13")
    assert [one.sender for one in of(facts, Backend)] == ["default/pod-a2"]
    assert only(await look(world, "pod-a2", "node-c", "22/tcp"), Question).target == "node-c"
    assert only(await look(world, "pod-a2", "node-c"), Question).target == "node-c"


async def test_a_node_port_may_be_any_port(world: World) -> None:
    """--service-node-port-range is somebody's choice."""
    ports = [{"name": "web", "port": 80, "protocol": "TCP", "targetPort": 8080, "nodePort": 8443}]
    world.store.create(service("low", type="NodePort", ports=ports))
    world.store.create(slice_of("low", end(B1[0], B1[1], B1[2])))
    question = only(await look(world, "pod-a2", "node-c", "8443/tcp"), Question)
    assert (question.target, question.service) == ("node-c", "default/low")


async def test_an_endpoint_whose_pod_is_gone_or_has_another_address(world: World) -> None:
    facts = await look(world, "pod-a2", "svc-stale")
    gone = only(facts, Backend)
    assert (gone.stale, gone.endpoint, gone.pod, gone.has_now) == (True, "", "default/gone", "")
    assert [one.name for one in of(facts, Endpoint)] == ["default/pod-a2", "default/svc-stale"]
    world.store.create(service("moved"))
    world.store.create(slice_of("moved", end("10.244.218.90", "pod-b1", "node-b")))
    moved = only(await look(world, "pod-a2", "moved"), Backend)
    assert (moved.stale, moved.has_now) == (True, B1[0])


async def test_an_address_of_a_pods_second_network_is_not_stale(world: World) -> None:
    world.store.create(service("storage"))
    world.store.create(slice_of("storage", end("192.168.7.5", "pod-b1", "node-b")))
    facts = await look(world, "pod-a2", "storage")
    other = only(facts, Backend)
    assert (other.stale, other.endpoint) == (False, "")
    assert "192.168.7.5" in {one.target for ask in plan(facts) for one in ask.send}


async def test_an_address_that_another_pod_has_by_now_leads_to_that_pod(world: World) -> None:
    world.store.create(service("reused"))
    world.store.create(slice_of("reused", end(B1[0], "gone", "node-b")))
    found = only(await look(world, "pod-a2", "reused"), Backend)
    assert (found.stale, found.endpoint) == (False, "default/pod-b1")


async def test_a_port_the_service_does_not_have(world: World) -> None:
    facts = await look(world, "pod-a2", "svc-ok", "81/tcp")
    port = only(facts, ServicePort)
    assert (port.found, port.port, port.ports) == (False, 81, ("80/tcp",))
    assert of(facts, Backend) == []
    assert not only(await look(world, "pod-a2", "svc-ok", "80/udp"), ServicePort).found


async def test_several_ports_are_offered(world: World) -> None:
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    world.store.create(service("names", ports=ports))
    error = await refused(world, "pod-a2", "names")
    assert error.sentence == (
        "default/names has 2 ports: 53/udp, 53/tcp. Say which one is meant: why pod-a2 names 53/udp"
    )
    assert (error.word, error.choices) == ("names", ("names 53/udp", "names 53/tcp"))
    assert only(await look(world, "pod-a2", "names", "53/udp"), ServicePort).protocol == "udp"


async def test_what_is_no_end_of_a_flow_is_said(world: World) -> None:
    alias = {"metadata": {"name": "outside", "namespace": "default"}, "apiVersion": "v1", "kind": "Service"}
    world.store.create({**alias, "spec": {"type": "ExternalName", "externalName": "db.example.org"}})
    assert "DNS gives db.example.org for it" in (await refused(world, "pod-a2", "outside")).sentence
    assert "a Service sends nothing" in (await refused(world, "svc-ok", "pod-a2")).sentence


async def test_without_the_right_to_read_slices_nothing_is_counted(world: World) -> None:
    facts = await look(world, "pod-a2", "svc-ok", token="limited")
    assert only(facts, ServicePort).counted is False
    assert only(facts, Blind, look="endpointslices").minor is False


async def test_without_the_right_to_read_services_nothing_is_taken_for_missing(world: World) -> None:
    for word in ("default/svc-ok", "svc-ok"):
        with pytest.raises(UserError) as caught:
            await look(world, "pod-a2", word, token="serviceless")
        assert "is no pod, and whether it is a Service could not be seen" in caught.value.sentence
        assert caught.value.status == COULD_NOT_JUDGE
    by_address = await look(world, "pod-a2", "10.96.0.50", "80/tcp", token="serviceless")
    assert only(by_address, Blind, look="services").minor is False
    # A port that may be a Service's is not asked for its listener.
    by_node_port = await look(world, "pod-a2", "node-c", "30080/tcp", token="serviceless")
    assert only(by_node_port, Question).port == 0
    assert only(by_node_port, Blind, look="services").minor is False


async def test_a_headless_service_is_asked_on_its_endpoints_own_port(world: World) -> None:
    world.store.create(service("headless", clusterIP="None"))
    world.store.create(slice_of("headless", end(A1[0], A1[1], A1[2]), end(B1[0], B1[1], B1[2])))
    facts = await look(world, "pod-a2", "headless", "5432/tcp")
    port = only(facts, ServicePort)
    assert (port.headless, port.address, port.found, port.ready) == (True, "", True, 2)
    assert {one.port for one in of(facts, Backend)} == {5432}


async def test_an_endpoint_that_is_being_ended_serves_where_no_other_is_ready(world: World) -> None:
    ending = end(A1[0], A1[1], A1[2], ready=False, serving=True, terminating=True)
    world.store.create(service("ending"))
    world.store.create(slice_of("ending", ending))
    facts = await look(world, "pod-a2", "ending")
    port = only(facts, ServicePort)
    assert (port.ready, port.serving, port.waiting) == (0, 1, ())
    assert only(facts, Backend).used
    world.store.create(slice_of("ending", end(B1[0], B1[1], B1[2], ready=True), number=2))
    facts = await look(world, "pod-a2", "ending")
    assert {one.pod: one.used for one in of(facts, Backend)} == {"default/pod-a1": False, "default/pod-b1": True}


async def test_on_its_own_node_an_endpoint_that_is_being_ended_still_counts(world: World) -> None:
    ending = end(A1[0], A1[1], A1[2], ready=False, serving=True, terminating=True)
    world.store.create(service("own", internalTrafficPolicy="Local"))
    world.store.create(slice_of("own", ending, end(B1[0], B1[1], B1[2])))
    facts = await look(world, "pod-a2", "own")
    assert only(facts, ServicePort).nodes == ("node-a", "node-b")
    assert {one.pod: one.used for one in of(facts, Backend)} == {"default/pod-a1": True, "default/pod-b1": False}


async def test_what_a_slice_leaves_open_is_ready(world: World) -> None:
    world.store.create(service("open"))
    world.store.create(slice_of("open", end(B1[0], B1[1], B1[2])))
    assert only(await look(world, "pod-a2", "open"), ServicePort).ready == 1


@pytest.mark.parametrize(("zone", "used"), [("z1", {"default/pod-a1"}), ("z2", {"default/pod-b1"}), ("z3", None)])
async def test_endpoints_for_another_zone_are_not_used(world: World, zone: str, used: set[str] | None) -> None:
    node = world.store.get("nodes", "node-a")
    node["metadata"].setdefault("labels", {})["topology.kubernetes.io/zone"] = zone
    world.store.update(node)
    world.store.create(service("zoned"))
    ends = [end(*A1, hints={"forZones": [{"name": "z1"}]}), end(*B1, hints={"forZones": [{"name": "z2"}]})]
    world.store.create(slice_of("zoned", *ends))
    found = of(await look(world, "pod-a2", "zoned"), Backend)
    assert {one.pod for one in found if one.used} == (used or {"default/pod-a1", "default/pod-b1"})


async def test_of_many_endpoints_one_a_node_is_looked_at_first(world: World) -> None:
    crowd = [end(f"10.244.218.{number}", f"crowd-{number}", "node-b") for number in range(100, 110)]
    world.store.create(service("crowd"))
    world.store.create(slice_of("crowd", *crowd, end(*C1), end(*A1)))
    facts = await look(world, "pod-a2", "crowd")
    looked = {one.pod.removeprefix("default/") for one in of(facts, Backend) if one.endpoint or one.stale}
    assert looked == {"crowd-100", "crowd-101", "pod-c1", "pod-a1"}
    assert only(facts, ServicePort).ready == 12
    left = only(facts, Blind, look="endpoints")
    assert left.minor and left.reason.startswith("8 more endpoints of default/crowd")


async def test_endpoints_that_are_no_pods(world: World) -> None:
    """A node's address, an address outside the cluster, and one of a pool that nobody has: written by hand."""
    agent = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "agent", "namespace": "kube-system"},
        "spec": {"containers": [{"name": "a", "image": "x"}], "nodeName": "node-b", "hostNetwork": True},
        "status": {"phase": "Running", "podIP": "172.30.0.12", "podIPs": [{"ip": "172.30.0.12"}]},
    }
    world.store.create(agent)
    world.store.create(service("by-hand", selector=None))
    world.store.create(slice_of("by-hand", end("172.30.0.12"), end("192.0.2.7"), end("10.244.0.9")))
    facts = await look(world, "pod-a2", "by-hand")
    assert {one.address: (one.endpoint, one.stale) for one in of(facts, Backend)} == {
        "172.30.0.12": ("node-b", False),
        "192.0.2.7": ("192.0.2.7", False),
        "10.244.0.9": ("", False),
    }
    assert only(facts, ServicePort).selector == ""
    assert only(facts, Endpoint, name="node-b").kind == "node"
    assert only(facts, Endpoint, name="192.0.2.7").kind == "address"


async def test_both_families_of_a_service_and_of_its_pod(world: World) -> None:
    six = "fd00:10:244:da40:995e:89a6:1d37:a7c1"
    both = {"clusterIPs": ["10.96.0.70", "fd00:10:96::70"], "ipFamilies": ["IPv4", "IPv6"]}
    world.store.create(service("both", ipFamilyPolicy="RequireDualStack", **both))
    world.store.create(slice_of("both", end(*B1)))
    world.store.create(slice_of("both", end(six, B1[1], B1[2]), family=6))
    facts = await look(world, "pod-a2", "both")
    assert {one.family: one.address for one in of(facts, ServicePort)} == {4: "10.96.0.70", 6: "fd00:10:96::70"}
    assert {one.family: one.address for one in of(facts, Backend)} == {4: B1[0], 6: six}
    assert {(ask.node, ask.family) for ask in plan(facts)} == {(n, f) for n in ("node-a", "node-b") for f in (4, 6)}
    for word, family in (("10.96.0.70", 4), ("fd00:10:96::70", 6)):
        assert {one.family for one in of(await look(world, "pod-a2", word), ServicePort)} == {family}


async def test_a_port_that_the_pod_names_is_its_own(world: World) -> None:
    pod = world.store.get("pods", "pod-b1", "default")
    assert not only(await look(world, "pod-a2", "svc-np"), Backend).declared
    pod["spec"]["containers"][0]["ports"] = [{"containerPort": 8080, "protocol": "TCP"}]
    world.store.delete("pods", "pod-b1", "default")
    world.store.create({**pod, "metadata": {k: v for k, v in pod["metadata"].items() if k != "resourceVersion"}})
    assert only(await look(world, "pod-a2", "svc-np"), Backend).declared
