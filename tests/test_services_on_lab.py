"""Every Service that was tried on a running cluster, tried again on the lab: the same symptom, and the right answer."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot.reply import text
from facts import Diagnosis, ProbeResult
from lab.client import Lab
from tests.asking import ask
from tests.recordings import load, unpacked
from tests.test_policies_on_lab import SETTLED_S, kubectl
from tests.test_service_source import end, service, slice_of

CLUSTER, RECORDED = "v3.32.1/dualstack/healthy", "v3.32.1/loose"
WRONG_PORT, NO_SERVICE = "svc-ok wrong service port", "no-such-svc"
HEALTHY = ""
VERDICTS = {
    "svc-ok": HEALTHY,
    "svc-np": HEALTHY,
    "svc-self": HEALTHY,
    "svc-none": "service_without_endpoints",
    "svc-notready": "service_without_endpoints",
    "svc-noslice": "service_without_endpoints",
    "svc-wrongport": "service_wrong_target_port",
    "svc-stale": "service_endpoint_stale",
    "svc-intlocal": "service_local_policy_without_endpoint",
    WRONG_PORT: "service_wrong_port",
}
CLIENTS = {"pod-a2": "pod-a2", "pod-c2": "pod-c2", "host-a": "node-a", "host-c": "node-c"}
IPTABLES = ("pod-a2", "host-a")  # their node's kube-proxy was in that mode; the lab's is in nftables mode everywhere
FLUSH = """
from lab.kernel import Kernel
from lab.namespaces import Namespace
Kernel(Namespace.here("node-a")).flush_firewall()
"""
SIX = "fd00:10:244:da40:995e:89a6:1d37:a7c1"
# More kinds of healthy Services, asked from a pod of the first endpoint's node, of another, and from the endpoint.
KINDS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "both-families": (
        {"clusterIPs": ["10.96.0.80", "fd00:10:96::80"], "ipFamilies": ["IPv4", "IPv6"]},
        [slice_of("both-families", end("10.244.218.65", "pod-b1", "node-b")),
         slice_of("both-families", end(SIX, "pod-b1", "node-b"), family=6)],
    ),
    "headless": (
        {"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}]},
        [slice_of("headless", end("10.244.218.65", "pod-b1", "node-b"), end("10.244.174.129", "pod-a1", "node-a"))],
    ),
    "one-is-ending": (
        {"clusterIP": "10.96.0.81"},
        [slice_of("one-is-ending", end("10.244.218.65", "pod-b1", "node-b", ready=True),
                  end("10.244.218.99", "gone", "node-b", ready=False, serving=True, terminating=True))],
    ),
    "only-ending": (
        {"clusterIP": "10.96.0.82"},
        [slice_of("only-ending",
                  end("10.244.218.65", "pod-b1", "node-b", ready=False, serving=True, terminating=True))],
    ),
    "one-starts": (
        {"clusterIP": "10.96.0.83", "sessionAffinity": "ClientIP"},
        [slice_of("one-starts", end("10.244.218.65", "pod-b1", "node-b"),
                  end("10.244.99.193", "pod-c1", "node-c", ready=False, serving=False))],
    ),
    "written-by-hand": (
        {"clusterIP": "10.96.0.84", "selector": None},
        [slice_of("written-by-hand", end("10.244.218.65"))],
    ),
    "two-slices": (
        {"clusterIP": "10.96.0.85"},
        [slice_of("two-slices", end("10.244.218.65", "pod-b1", "node-b")),
         slice_of("two-slices", end("10.244.99.193", "pod-c1", "node-c"), number=2)],
    ),
    "local-everywhere": (
        {"clusterIP": "10.96.0.86", "internalTrafficPolicy": "Local"},
        [slice_of("local-everywhere", end("10.244.174.129", "pod-a1", "node-a"),
                  end("10.244.218.65", "pod-b1", "node-b"), end("10.244.99.193", "pod-c1", "node-c"))],
    ),
    "over-udp": (
        {"clusterIP": "10.96.0.88", "ports": [{"name": "web", "port": 53, "protocol": "UDP", "targetPort": 8080}]},
        [{**slice_of("over-udp", end("10.244.218.65", "pod-b1", "node-b")),
          "ports": [{"name": "web", "port": 8080, "protocol": "UDP"}]}],
    ),
    "zones-that-nobody-is-in": (
        {"clusterIP": "10.96.0.87"},
        [slice_of("zones-that-nobody-is-in",
                  end("10.244.218.65", "pod-b1", "node-b", hints={"forZones": [{"name": "z"}]}))],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The recorded cluster with its thirteen Services and those of KINDS."""
    directory = shutil.copytree(unpacked(CLUSTER), tmp_path_factory.mktemp("services") / "cluster")
    files = {name: load(RECORDED)[f"services/objects/{name}.json"]["items"] for name in ("services", "endpointslices")}
    more = {
        "services": [service(name, **spec) for name, (spec, _) in KINDS.items()],
        "endpointslices": [one for _, slices in KINDS.values() for one in slices],
    }
    for name, items in files.items():
        (directory / "k8s" / f"{name}.json").write_text(json.dumps({"items": [*items, *more[name]]}))
    with Lab.up(objects=directory, fixers=False) as lab:
        for node in ("node-a", "node-b", "node-c"):  # a kernel refuses one client some times a second, then is silent
            done = lab.exec(node, "sh", "-c", "echo 0 > /proc/sys/net/ipv4/icmp_ratelimit")
            assert done.returncode == 0, done.stderr
        yield lab


async def diagnosed(lab: Lab, words: str) -> Diagnosis:
    return (await ask(lab.environment(), words)).diagnosis


def symptom(row: dict[str, Any]) -> str:
    """What the client met, as a ProbeResult has it."""
    if row["result"].startswith("connected"):
        return "answered"
    if row["result"].startswith("timeout"):
        return "silence"
    return "unreachable" if any(kind.startswith("ICMP") for kind in row["kinds"]) else "refused"


@pytest.mark.parametrize("client", CLIENTS)
async def test_every_recorded_service_answers_as_recorded_and_is_judged_right(services: Lab, client: str) -> None:
    rows = [row for row in load(RECORDED)["services/results.json"] if row["client"] == client]
    asked = {row["service"]: row for row in rows if row["service"] in VERDICTS}
    assert asked.keys() == VERDICTS.keys()
    for name, row in asked.items():
        address, port = row["target"].split(":")
        diagnosis = await diagnosed(services, f"{CLIENTS[client]} {address} {port}/tcp")
        assert [cause.rule for cause in diagnosis.causes] == list(filter(None, [VERDICTS[name]])), name
        assert diagnosis.verdict == ("cause" if VERDICTS[name] else "healthy"), (name, diagnosis.summary)
        assert diagnosis.warnings == () and diagnosis.blind == (), name
        met = [one for one in diagnosis.facts if isinstance(one, ProbeResult) and one.target_address == address]
        by_mode = name == WRONG_PORT and client in IPTABLES
        assert [one.outcome for one in met] == ["unreachable" if by_mode else symptom(row)], name


NODE_PORTS = {
    "svc-np": HEALTHY,
    "svc-local": "service_local_policy_without_endpoint",  # where no answer was recorded
    "svc-npnone": "service_without_endpoints",
}
# Recorded from outside only; what comes from a pod of another node looks the same to a node.
ALSO = [
    ("pod-b2", "svc-npnone", "node-a", "30082", "unreachable"),
    ("pod-a2", "svc-npnone", "node-a", "30082", "unreachable"),
]


async def test_every_recorded_node_port_answers_as_recorded_and_is_judged_right(services: Lab) -> None:
    rows = [
        (row["client"], *row["service"].split(" via "), row["target"].split(":")[1], symptom(row))
        for row in load(RECORDED)["services/results.json"]
        if row["client"] in CLIENTS and " via " in row["service"]
    ]
    assert len(rows) == 12
    for client, name, node, port, met in [*rows, *ALSO]:
        diagnosis = await diagnosed(services, f"{client} {node} {port}/tcp")
        asked = (client, name, node)
        cause = NODE_PORTS[name] if met != "answered" else HEALTHY
        assert [one.rule for one in diagnosis.causes] == list(filter(None, [cause])), asked
        assert diagnosis.verdict == ("cause" if cause else "healthy"), (asked, diagnosis.summary)
        assert diagnosis.warnings == () and diagnosis.blind == (), asked
        tried = [one for one in diagnosis.facts if isinstance(one, ProbeResult) and str(one.port) == port]
        assert [one.outcome for one in tried] == [met], asked


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("allowed", ["10.244.0.0/16", "172.30.0.0/24"])
async def test_an_egress_policy_meets_a_node_port_behind_kube_proxy_on_the_pods_own_node_alone(
    services: Lab, allowed: str
) -> None:
    """Of the pods' network or of the nodes': what is for its own node carries an endpoint's address by then."""
    rule = {"action": "Allow", "destination": {"nets": [allowed]}}
    policy = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "default.narrow"},
        "spec": {"selector": "all()", "types": ["Egress"], "egress": [rule]},
    }
    to_pods = allowed.startswith("10.244")
    await asyncio.to_thread(kubectl, services, "apply", "--validate=false", "-f", "-", given=json.dumps(policy))
    try:
        for node, passes in (("node-a", to_pods), ("node-c", not to_pods)):
            deadline = time.monotonic() + SETTLED_S
            while True:  # until the rules are those of the policy
                diagnosis = await diagnosed(services, f"pod-a2 {node} 30080/tcp")
                met = [one for one in diagnosis.facts if isinstance(one, ProbeResult) and one.port == 30080]
                if [one.outcome == "answered" for one in met] == [passes]:
                    break
                assert time.monotonic() < deadline, (node, met)
            found = [(one.rule, one.node) for one in diagnosis.causes]
            assert found == ([] if passes else [("policy_denies_egress", "node-a")]), (node, diagnosis.summary)
    finally:
        await asyncio.to_thread(kubectl, services, "delete", "--wait=false", "-f", "-", given=json.dumps(policy))


async def test_a_node_port_is_drawn_as_the_service_it_is(services: Lab) -> None:
    answer = await ask(services.environment(), "pod-a2 node-c 30080/tcp")
    assert "->  service default/svc-np (172.30.0.13:30080) -> default/pod-b1:8080 on node-b " in text.render(answer)


async def test_a_node_port_of_no_service_is_the_nodes_own(services: Lab) -> None:
    diagnosis = await diagnosed(services, "pod-a2 node-c 30999/tcp")
    assert [cause.rule for cause in diagnosis.causes] == ["target_not_listening"]


async def test_an_address_of_no_service_is_silent_as_recorded(services: Lab) -> None:
    row = next(one for one in load(RECORDED)["services/results.json"] if one["service"] == NO_SERVICE)
    address, port = row["target"].split(":")
    diagnosis = await diagnosed(services, f"pod-a2 {address} {port}/tcp")
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())
    met = [one for one in diagnosis.facts if isinstance(one, ProbeResult) and one.protocol == "tcp"]
    assert {one.outcome for one in met} == {symptom(row)} == {"silence"}


@pytest.mark.parametrize("name", KINDS)
async def test_no_healthy_service_is_accused(services: Lab, name: str) -> None:
    for client in ("pod-b2", "pod-a2", "pod-b1", "node-c"):
        diagnosis = await diagnosed(services, f"{client} default/{name}")
        assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ()), (client, diagnosis)
        assert diagnosis.blind == (), client


async def test_a_wound_on_the_way_to_an_endpoint_is_named_through_its_service(services: Lab) -> None:
    services.inflict("neighbor_missing", "default/pod-a2", "default/pod-b1")
    try:
        one, two = await diagnosed(services, "pod-a2 svc-np"), await diagnosed(services, "pod-a2 svc-ok")
    finally:
        services.heal()
    for diagnosis in (one, two):
        assert [(cause.rule, cause.node) for cause in diagnosis.causes] == [("neighbor_missing", "node-a")]


async def test_where_nothing_translates_the_address_it_is_said_so(services: Lab) -> None:
    """kube-proxy's rules are gone from the client's node: endpoints answer, the Service's address does not."""
    done = services.exec("node-a", "env", f"PYTHONPATH={Path(__file__).parents[1]}", sys.executable, "-c", FLUSH)
    assert done.returncode == 0, done.stderr
    try:
        diagnosis = await diagnosed(services, "pod-a2 svc-np")
    finally:
        services.heal()
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())
    assert "usually kube-proxy" in diagnosis.summary and "node-a" in diagnosis.summary
    assert (await diagnosed(services, "pod-a2 svc-np")).verdict == "healthy"


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")
@pytest.mark.parametrize("client", ["pod-a2", "node-a"])
async def test_a_rule_that_drops_a_node_port_is_named_on_the_node_that_was_asked(services: Lab, client: str) -> None:
    """A pod's packets come there under its node's address."""
    rule = "table ip wall {\nchain in {\ntype filter hook prerouting priority -300\ntcp dport 30080 drop\n}\n}\n"
    assert services.exec("node-c", "nft", "-f", "-", input=rule).returncode == 0
    try:
        diagnosis = await diagnosed(services, f"{client} node-c 30080/tcp")
    finally:
        services.exec("node-c", "nft", "delete", "table", "ip", "wall")
    assert [(cause.rule, cause.node) for cause in diagnosis.causes] == [("host_firewall_drops_local", "node-c")]
    assert "tcp dport 30080 drop" in diagnosis.causes[0].text
