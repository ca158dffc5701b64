"""A Service as the target, judged from facts: when it is the Service, when its endpoints, and when nobody can say."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bot.reply import evidence, text
from engine.diagnosis import diagnose
from engine.plan import TRAIN, plan
from facts import (
    Allocation,
    Backend,
    CalicoNode,
    Endpoint,
    Fact,
    Listener,
    PodRoute,
    ProbeResult,
    Question,
    ServicePort,
)
from tests.answers import investigation
from tests.scene import CART, DB, change, healthy, without

SERVICE, ADDRESS, PORT, TARGET_PORT = "shop/db-service", "10.96.0.9", 80, 5432
KERNELS = (ProbeResult, Listener)


def service(**fields: Any) -> ServicePort:
    about: dict[str, Any] = {
        "service": SERVICE,
        "address": ADDRESS,
        "protocol": "tcp",
        "port": PORT,
        "target_port": str(TARGET_PORT),
        "selector": "app=db",
        "ports": (f"{PORT}/tcp",),
        "ready": 1,
        "nodes": ("node-b",),
        "node": "node-a",
    }
    return ServicePort(**{**about, **fields})


def backend(**fields: Any) -> Backend:
    name, node, address, _ = DB
    about = {"address": address, "port": TARGET_PORT, "endpoint": name, "pod": name, "node": node, "sender": CART[0]}
    return Backend(service=SERVICE, protocol="tcp", **{**about, **fields})


def tried(answered: int = 4, outcome: str = "answered", **fields: Any) -> ProbeResult:
    name, node, address, _ = CART
    about: dict[str, Any] = {"node": node, "pod": name, "source_address": address, "target_address": ADDRESS}
    about |= {"protocol": "tcp", "port": PORT, "sent": 4, "answered": answered, "outcome": outcome}
    return ProbeResult(**{**about, **fields})


def scene(*facts: Fact) -> list[Fact]:
    """Everything about cart and db, asked through a Service, and `facts` about that."""
    question = Question(source=CART[0], target=SERVICE, protocol="tcp", port=PORT)
    address = Endpoint(name=SERVICE, kind="service", address=ADDRESS, addresses=(ADDRESS,))
    seen = [one for one in healthy(port=TARGET_PORT) if not isinstance(one, Question)]
    return [question, address, *seen, *facts]


def well() -> list[Fact]:
    return scene(service(), backend(), tried())


def without_endpoint(*facts: Fact) -> list[Fact]:
    """Nothing is known of db: no slice names it."""
    return [one for one in scene(*facts) if not _of_db(one)]


def _of_db(fact: Fact) -> bool:
    names = {getattr(fact, field, "") for field in ("name", "pod", "node", "address", "target_address", "destination")}
    return bool(names & {DB[0], DB[1], DB[2]}) and not isinstance(fact, ServicePort)


def named(facts: list[Fact]) -> list[str]:
    return [cause.rule for cause in diagnose(facts).causes]


def test_its_own_address_and_the_way_to_its_endpoint_make_it_healthy() -> None:
    diagnosis = diagnose(well())
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ())
    assert f"{ADDRESS} of {SERVICE}: tcp 80 4 of 4 answered." in diagnosis.summary
    assert {leg.target for leg in diagnosis.path if leg.direction == "forward"} == {DB[0]}


@pytest.mark.parametrize(
    "hidden",
    [
        lambda f: isinstance(f, ServicePort),
        lambda f: isinstance(f, Backend),
        lambda f: isinstance(f, ProbeResult) and f.target_address == ADDRESS,
        lambda f: isinstance(f, Endpoint) and f.name == DB[0],
        lambda f: isinstance(f, CalicoNode) and f.name == DB[1],
        lambda f: isinstance(f, Allocation) and f.address == DB[2],
    ],
)
def test_what_is_hidden_of_a_service_is_never_healthy(hidden: Any) -> None:
    facts = well()
    less = [fact for fact in facts if not hidden(fact)]
    assert len(less) == len(facts) - 1
    diagnosis = diagnose(less)
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())
    assert diagnosis.summary


@pytest.mark.parametrize(("answered", "outcome"), [(0, "silence"), (3, "silence"), (0, "unreachable")])
def test_where_only_its_own_address_fails_kube_proxy_is_what_to_look_at(answered: int, outcome: str) -> None:
    diagnosis = diagnose(scene(service(), backend(), tried(answered, outcome)))
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())
    assert f"{ADDRESS} of {SERVICE}: tcp 80 {answered} of 4" in diagnosis.summary
    assert "answers directly" in diagnosis.summary and "on node-a, usually kube-proxy" in diagnosis.summary


def test_a_client_that_sends_the_services_address_elsewhere_is_not_kube_proxys_fault() -> None:
    away = PodRoute(
        node="node-a", pod=CART[0], destination=ADDRESS, found=True, prefix="10.96.0.0/12", device="net1",
        next_hop="192.168.9.1",
    )  # fmt: skip
    diagnosis = diagnose([*scene(service(), backend(), tried(0, "silence")), away])
    assert "kube-proxy" not in diagnosis.summary
    assert "10.96.0.0/12 via 192.168.9.1 sends packets to" in diagnosis.summary and "net1" in diagnosis.summary


def test_an_endpoint_behind_a_policy_is_no_fault_of_the_service() -> None:
    """Recorded: both are silent (calico_truth_2.md 4, svc-policy)."""
    facts = change(
        scene(service(), backend(), tried()), ProbeResult, {"protocol": "tcp"}, answered=0, outcome="silence"
    )
    diagnosis = diagnose(facts)
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())
    assert "kube-proxy" not in diagnosis.summary


# -- no endpoint ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["unreachable", "refused", "silence"])
def test_no_ready_endpoint(outcome: str) -> None:
    asleep = backend(endpoint="", ready=False, serving=False, used=False)
    nobody = service(ready=0, nodes=(), waiting=("shop/db",))
    diagnosis = diagnose(without_endpoint(nobody, asleep, tried(0, outcome)))
    assert [cause.rule for cause in diagnosis.causes] == ["service_without_endpoints"]
    assert "none is ready (shop/db)" in diagnosis.causes[0].text


def test_somebody_else_answers_for_a_service_without_endpoints() -> None:
    """A cache on the node that has taken over the address of the cluster's DNS."""
    diagnosis = diagnose(without_endpoint(service(ready=0, nodes=()), tried()))
    assert diagnosis.causes == ()
    assert [cause.rule for cause in diagnosis.warnings] == ["service_without_endpoints"]


@pytest.mark.parametrize(
    "port",
    [
        service(ready=0, nodes=(), counted=False),  # slices could not be read
        service(ready=0, serving=1),  # one is being ended and still serves
        service(ready=0, nodes=(), headless=True, address=""),
    ],
)
def test_a_service_that_may_have_endpoints_is_not_accused(port: ServicePort) -> None:
    assert named(without_endpoint(port, tried(0, "silence"))) == []


def test_packets_that_never_left_say_nothing_of_a_service() -> None:
    facts = without_endpoint(service(ready=0, nodes=()), tried(0, "unreachable", sent=0))
    assert named(facts) == []


# -- ports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["silence", "unreachable"])  # kube-proxy's iptables mode, nftables mode
def test_a_port_the_service_does_not_have(outcome: str) -> None:
    port = service(port=81, found=False, ready=0, nodes=())
    diagnosis = diagnose(without_endpoint(port, tried(0, outcome, port=81)))
    assert [cause.rule for cause in diagnosis.causes] == ["service_wrong_port"]
    assert diagnosis.causes[0].text == f"{SERVICE} has no port 81/tcp; it has 80/tcp."


def refused(**listener: Any) -> list[Fact]:
    facts = scene(service(), backend(), tried(0, "refused"))
    facts = change(facts, ProbeResult, {"target_address": DB[2], "protocol": "tcp"}, answered=0, outcome="refused")
    return change(facts, Listener, {}, found=False, addresses=(), **listener)


def test_a_target_port_on_which_the_pod_does_not_listen() -> None:
    diagnosis = diagnose(refused(other_ports=(8080, 9090)))
    assert [cause.rule for cause in diagnosis.causes] == ["service_wrong_target_port"]
    assert "it listens on 8080 and 9090" in diagnosis.causes[0].text


def test_an_application_that_is_down_is_not_a_wrong_target_port() -> None:
    assert named(refused()) == ["target_not_listening"]
    declared = change(refused(other_ports=(9090,)), Backend, {}, declared=True)
    assert named(declared) == ["target_not_listening"]


# -- endpoints ------------------------------------------------------------------------------------------------------


def gone(answered: int = 0) -> list[Fact]:
    stale = backend(address="10.244.218.120", endpoint="", pod="shop/gone", stale=True)
    direct = tried(answered, "silence", target_address="10.244.218.120", port=TARGET_PORT, sent=2)
    return scene(service(ready=2), backend(), stale, tried(2, "silence"), direct)


def test_an_endpoint_that_nobody_has_beside_a_good_one() -> None:
    diagnosis = diagnose(gone())
    assert [(cause.rule, cause.node) for cause in diagnosis.causes] == [("service_endpoint_stale", "node-b")]
    assert "pass all the same" not in diagnosis.summary


def test_an_endpoint_that_answers_is_not_stale() -> None:
    assert named(gone(answered=2)) == []


@pytest.mark.parametrize(
    ("fields", "accused"),
    [
        ({"nodes": ("node-b",)}, True),
        ({"nodes": ("node-a", "node-b")}, False),
        ({"nodes": ("", "node-b")}, False),  # one whose node no slice names
        ({"nodes": (), "ready": 0}, False),  # none anywhere is another matter
        ({"nodes": ("node-b",), "local": False}, False),
    ],
)
def test_a_service_for_a_nodes_own_pods(fields: dict[str, Any], accused: bool) -> None:
    port = service(**{"local": True, **fields})
    facts = without_endpoint(port, backend(endpoint="", used=False), tried(0, "silence"))
    assert ("service_local_policy_without_endpoint" in named(facts)) == accused


def test_an_endpoint_that_was_only_tried_and_is_silent_leaves_it_open() -> None:
    other = backend(address="10.244.99.200", endpoint="", pod="shop/db-9", node="node-c")
    lost = tried(1, "silence", target_address="10.244.99.200", port=TARGET_PORT, sent=2)
    diagnosis = diagnose(scene(service(ready=2), backend(), other, tried(), lost))
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())
    assert "The endpoint 10.244.99.200 does not always answer" in diagnosis.summary
    untried = diagnose(scene(service(ready=2), backend(), other, tried()))
    assert untried.verdict == "unknown"
    answered = msgspec.structs.replace(lost, answered=2, outcome="answered")
    assert diagnose(scene(service(ready=2), backend(), other, tried(), answered)).verdict == "healthy"


def test_a_pod_that_is_its_own_services_only_endpoint() -> None:
    name, node, address, _ = CART
    own = backend(address=address, endpoint="", pod=name, node=node)
    diagnosis = diagnose(without_endpoint(service(nodes=(node,)), own, tried()))
    assert (diagnosis.verdict, diagnosis.causes) == ("healthy", ())
    lost = diagnose(without_endpoint(service(nodes=(node,)), own, tried(0, "silence")))
    assert (lost.verdict, lost.causes) == ("unknown", ())


def test_an_ipv6_address_is_nothing_to_a_client_without_ipv6() -> None:
    both = [service(), service(family=6, address="fd00:10:96::9"), backend(), tried()]
    both.append(backend(family=6, address="fd00:10:244:da40:995e:89a6:1d37:a7c4"))
    assert diagnose(scene(*both)).verdict == "healthy"


# -- what is asked --------------------------------------------------------------------------------------------------


def test_the_clients_node_tries_the_services_address_beside_the_endpoint() -> None:
    alone = backend(address="10.244.99.200", endpoint="", pod="shop/db-9", node="node-c")
    facts = without(scene(service(ready=2), backend(), alone), *KERNELS)
    source, target = plan(facts)
    assert (source.node, target.node) == ("node-a", "node-b")
    wanted = {(probe.pod, probe.target, probe.port, probe.count) for probe in source.send if probe.protocol == "tcp"}
    cart = CART[0]
    assert wanted == {
        (cart, DB[2], TARGET_PORT, 2),
        (cart, DB[2], TARGET_PORT, TRAIN),
        (cart, ADDRESS, PORT, 4),
        (cart, "10.244.99.200", TARGET_PORT, 2),
    }
    assert ADDRESS not in {probe.target for probe in target.send}


def test_a_service_without_endpoints_is_tried_all_the_same() -> None:
    (ask,) = plan(without_endpoint(service(ready=0, nodes=())))
    assert (ask.node, ask.tunnel_device, ask.ways) == ("node-a", "", ())
    assert [(probe.pod, probe.target, probe.count) for probe in ask.send] == [(CART[0], ADDRESS, 4)]
    assert [(pod.name, pod.address, pod.interface) for pod in ask.local_pods] == [(CART[0], CART[2], CART[3])]


# -- how it is told -------------------------------------------------------------------------------------------------


def header(facts: list[Fact]) -> str:
    return text.render(investigation(diagnose(facts))).splitlines()[0]


def test_the_header_leads_from_the_client_through_the_service_to_its_endpoints() -> None:
    assert f"  ->  service {SERVICE} ({ADDRESS}:80) -> shop/db:5432 on node-b   80/tcp" in header(well())
    crowd = [
        backend(address=f"10.244.99.{number}", endpoint="", pod=f"shop/db-{number}", node="") for number in range(4)
    ]
    assert header(scene(service(), backend(), *crowd)).count("shop/db-") == 3  # shop/db-service and two of the crowd
    assert ", 2 more " in header(scene(service(), backend(), *crowd))
    nobody = header(without_endpoint(service(ready=0, nodes=()), tried(0, "unreachable")))
    assert f"service {SERVICE} ({ADDRESS}:80) -> no endpoint it may use " in nobody
    wrong = header(without_endpoint(service(port=81, found=False, ready=0, nodes=()), tried(0, "silence", port=81)))
    assert f"service {SERVICE} ({ADDRESS}:81) " in wrong and "endpoint" not in wrong


@pytest.mark.parametrize(
    ("port", "expected", "seen"),
    [
        (service(ready=0, nodes=()), "a ready endpoint", "none"),
        (service(found=False, ready=0), "one of its ports", "its ports are 80/tcp"),
        (service(local=True), "1 endpoints ready, on node-b", "1 endpoints ready, on node-b"),
    ],
)
def test_the_evidence_holds_the_service_beside_what_it_should_have(port: ServicePort, expected: str, seen: str) -> None:
    rows = evidence.rows(diagnose(without_endpoint(port, tried(0, "silence"))))
    (row,) = [one for one in rows if one.what == f"80/tcp of service {SERVICE}"]
    assert (row.expected, row.seen) == (expected, seen)


def test_the_evidence_says_who_was_to_have_a_stale_address() -> None:
    (row,) = [one for one in evidence.rows(diagnose(gone())) if one.what.startswith("who has 10.244.218.120")]
    assert (row.expected, row.seen, row.cited) == ("shop/gone", "none", True)
