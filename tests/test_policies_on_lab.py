"""Real packets through real rules, and what is said of them: where the two differ, somebody would be told a lie.

The rules are programmed by the lab as a running Calico would; what is said comes from the policies alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from facts import Diagnosis, PoliciesRead, PolicyAllows, PolicyOpinion, ProbeResult
from lab.client import Lab
from tests.asking import ask

SETTLED_S = 20.0
V1 = "crd.projectcalico.org/v1"
CROSSING = ("shop/cart", "shop/db", 5432)
BACK = ("shop/db", "shop/cart", 8080)
BESIDE = ("shop/cart", "shop/web", 8080)
Object = dict[str, Any]

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


def policy(kind: str, name: str = "p", version: str = V1, **spec: Any) -> Object:
    namespaced = kind in ("NetworkPolicy", "StagedNetworkPolicy")
    meta = {"name": name, **({"namespace": "shop"} if namespaced else {})}
    return {"apiVersion": version, "kind": kind, "metadata": meta, "spec": spec}


def of_kubernetes(**spec: Any) -> Object:
    return policy("NetworkPolicy", version="networking.k8s.io/v1", **{"podSelector": {}, **spec})


# What is applied, and which of the pairs' TCP connections then still work.
CASES: dict[str, tuple[list[Object], set[tuple[str, str, int]]]] = {
    "deny all": ([of_kubernetes(policyTypes=["Ingress"])], set()),
    "one port": (
        [of_kubernetes(policyTypes=["Ingress"], ingress=[{"ports": [{"port": 5432}]}])],
        {CROSSING},
    ),
    "egress of one pod": (
        [of_kubernetes(podSelector={"matchLabels": {"app": "cart"}}, policyTypes=["Egress"],
                       egress=[{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}]}])],
        {BACK, BESIDE},
    ),
    "deny by an address before allow": (
        [policy("GlobalNetworkPolicy", order=5, types=["Ingress"], selector="app == 'db' || app == 'web'", ingress=[
            {"action": "Deny", "protocol": "TCP", "destination": {"selector": "app == 'db'"}}, {"action": "Allow"}])],
        {BACK, BESIDE},
    ),
    "a tier that passes, then tier default": (
        [policy("Tier", "early", order=10),
         policy("GlobalNetworkPolicy", "early.g", tier="early", types=["Ingress"], ingress=[
             {"action": "Pass", "source": {"selector": "app == 'cart'"}}]),
         policy("NetworkPolicy", "n", types=["Ingress"], selector="app == 'web'", ingress=[
             {"action": "Allow", "protocol": "TCP", "destination": {"ports": [8080]}}])],
        {CROSSING, BESIDE},
    ),
    "an admin of the whole cluster": (
        [policy("ClusterNetworkPolicy", version="policy.networking.k8s.io/v1alpha2", tier="Admin", priority=1,
                subject={"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "cart"}}}},
                ingress=[{"action": "Deny", "from": [{"namespaces": {}}]}])],
        {CROSSING, BESIDE},
    ),
    "staged": (
        [policy("StagedNetworkPolicy", types=["Ingress"], ingress=[{"action": "Deny"}])],
        {CROSSING, BACK, BESIDE},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab.up(fixers=False) as running:
        yield running


def kubectl(lab: Lab, *words: str, given: str = "") -> None:
    environment = {**os.environ, **lab.administrator()}
    subprocess.run(["kubectl", *words], env=environment, input=given, check=True, text=True, capture_output=True)


@pytest.mark.parametrize("case", CASES)
async def test_what_is_said_of_packets_is_what_they_met(lab: Lab, case: str) -> None:
    applied, working = CASES[case]
    written = json.dumps({"apiVersion": "v1", "kind": "List", "items": applied})
    await asyncio.to_thread(kubectl, lab, "apply", "--validate=false", "-f", "-", given=written)
    try:
        for pair in (CROSSING, BACK, BESIDE):
            source, target, port = pair
            deadline = time.monotonic() + SETTLED_S
            while True:  # until the rules are those of the policies
                found = (await ask(lab.environment(), f"{source} {target} {port}/tcp")).diagnosis
                assert "policy_bypassed" not in {one.rule for one in found.warnings}, "Felix was only on its way"
                if answered(found, "tcp", source) == (pair in working):
                    break
                assert time.monotonic() < deadline, f"{pair}: {found.summary}"
            check(found, source, pair in working)
    finally:
        await asyncio.to_thread(kubectl, lab, "delete", "--wait=false", "-f", "-", given=written)


async def test_the_host_endpoint_that_keeps_the_question_from_a_probe_is_named(lab: Lab) -> None:
    host = policy("HostEndpoint", "guarded", node="node-b", interfaceName="eth0")
    written = json.dumps(host)
    await asyncio.to_thread(kubectl, lab, "apply", "--validate=false", "-f", "-", given=written)
    try:
        deadline = time.monotonic() + SETTLED_S
        while (found := (await ask(lab.environment(), "shop/cart shop/db")).diagnosis).verdict == "healthy":
            assert time.monotonic() < deadline, "the probe of node-b is still reached"
        assert (found.verdict, found.causes) == ("unknown", ())
        (told,) = [one for one in found.blind if (one.node, one.look) == ("node-b", "policies")]
        assert "No policy allows tcp 9797 into guarded" in told.reason and "of eth0 on node-b" in told.reason
        # Which interface the packets come in by nobody has told, so nobody may say that they pass.
        found = (await ask(lab.environment(), "shop/cart node-b")).diagnosis
        assert found.verdict == "unknown" and "whether host endpoint guarded is in the way" in found.summary
    finally:
        await asyncio.to_thread(kubectl, lab, "delete", "--wait=false", "-f", "-", given=written)
    found = (await ask(lab.environment(), "shop/cart shop/mail")).diagnosis
    assert not [one for one in found.blind if one.look == "policies"]


def answered(found: Diagnosis, protocol: str, source: str) -> bool:
    sent = [one for one in found.facts if isinstance(one, ProbeResult) and one.pod == source]
    return all(one.answered for one in sent if one.protocol == protocol and not one.size)


def check(found: Diagnosis, source: str, works: bool) -> None:
    """Of each kind of packet: it came back if, and only if, nothing is said to drop it."""
    if works:  # no packet of the asked kind is lost, so nothing is told of what the policies say
        assert not any(isinstance(one, PoliciesRead) for one in found.facts)
        return
    said = [one for one in found.facts if isinstance(one, PolicyOpinion) and one.leg == "forward"]
    for protocol in ("tcp", "icmp"):
        verdicts = {one.verdict for one in said if one.protocol == protocol}
        assert verdicts and verdicts <= {"allow", "deny"}
        assert answered(found, protocol, source) == ("deny" not in verdicts), protocol
    (passing,) = [one for one in found.facts if isinstance(one, PolicyAllows) and one.leg == "forward"]
    assert not passing.doubtful
    assert ("icmp" in passing.allowed) == answered(found, "icmp", source)
