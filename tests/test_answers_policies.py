"""Policies of every kind on a real kernel, asked about through the product: what drops packets is named, and a policy
that drops none of the asked ones accuses nobody."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from facts import Diagnosis, Endpoint, Leg, RuleDrop
from lab.client import Lab
from lab.faults import load, needs
from tests import exhaustive
from tests.asking import ask, told, words_for
from tests.test_policies_on_lab import kubectl, of_kubernetes, policy

SETTLED_S = 20.0
INGRESS, EGRESS, FORGETS, HOST = (
    "policy_denies_ingress",
    "policy_denies_egress",
    "policy_forgets_address_family",
    "host_endpoint_denies",
)
HEALTHY = ("healthy", "", "")
Object = dict[str, Any]

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


def host_endpoint(node: str, address: str) -> Object:
    return {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "HostEndpoint",
        "metadata": {"name": "guarded", "labels": {"guarded": "yes"}},
        "spec": {"node": node, "interfaceName": "eth0", "expectedIPs": [address]},
    }


ONLY_CART = {"podSelector": {"matchLabels": {"app": "cart"}}}
ONE_PORT = of_kubernetes(policyTypes=["Ingress"], ingress=[{"ports": [{"port": 5432}]}])
OF_IPV4 = of_kubernetes(policyTypes=["Ingress"], ingress=[{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}])
# What is applied; a question, (verdict, failure mode, node), and words of what is told first.
CASES: dict[str, tuple[list[Object], dict[str, tuple[tuple[str, str, str], str]]]] = {
    "one port": (
        [ONE_PORT],
        {
            "shop/cart shop/db": (("unknown", INGRESS, "node-b"), "They let 5432/tcp pass: ask again"),
            "shop/cart shop/db 5432/tcp": (HEALTHY, ""),
            "shop/cart shop/db 8080/tcp": (("cause", INGRESS, "node-b"), "(NetworkPolicy shop/p)"),
            "shop/cart shop/web 8080/udp": (("cause", INGRESS, "node-a"), "drops udp 8080"),
        },
    ),
    "nothing at all": (
        [of_kubernetes(policyTypes=["Ingress", "Egress"])],
        {
            "shop/cart shop/db": (("cause", EGRESS, "node-a"), "at the end of tier default"),
            "shop/cart shop/web": (("cause", EGRESS, "node-a"), "at the end of tier default"),
            "shop/cart node-b": (("cause", EGRESS, "node-a"), "drops icmp from shop/cart to node-b"),
            "shop/cart node-a": (("cause", EGRESS, "node-a"), "drops icmp from shop/cart to node-a"),
            "node-a shop/db 5432/tcp": (("cause", INGRESS, "node-b"), "drops tcp 5432 from node-a to shop/db"),
            "node-a shop/cart": (HEALTHY, ""),  # a node reaches its own pods
        },
    ),
    "several, one of which denies": (
        [
            ONE_PORT,
            policy("GlobalNetworkPolicy", "default.early", order=5, types=["Ingress"], selector="app == 'db'", ingress=[
                {"action": "Allow", "protocol": "UDP"},
                {"action": "Deny", "protocol": "TCP", "source": {"selector": "app == 'cart'"}}]),
            policy("NetworkPolicy", "default.late", order=7, types=["Ingress"], selector="app == 'db'",
                   ingress=[{"action": "Allow"}]),
        ],
        {
            "shop/cart shop/db 5432/tcp": (("cause", INGRESS, "node-b"), "by rule 2 of GlobalNetworkPolicy early"),
            "shop/web shop/db 5432/tcp": (HEALTHY, ""),
            "shop/cart shop/db": (HEALTHY, ""),
        },
    ),
    "a tier of its own": (
        [policy("Tier", "early", order=10),
         policy("GlobalNetworkPolicy", "early.g", tier="early", types=["Ingress"],
                ingress=[{"action": "Pass", "source": {"selector": "app == 'cart'"}}])],
        {
            "shop/cart shop/db 5432/tcp": (HEALTHY, ""),
            "shop/web shop/db 5432/tcp": (("cause", INGRESS, "node-b"), "end of tier early"),
        },
    ),
    "an admin of the whole cluster": (
        [policy("ClusterNetworkPolicy", version="policy.networking.k8s.io/v1alpha2", tier="Admin", priority=1,
                subject={"pods": {"namespaceSelector": {}, **ONLY_CART}},
                ingress=[{"name": "nobody", "action": "Deny", "from": [{"namespaces": {}}]}])],
        {"shop/db shop/cart 8080/tcp": (("cause", INGRESS, "node-a"), "by rule 1 (nobody) of ClusterNetworkPolicy p")},
    ),
    "staged": (
        [policy("StagedNetworkPolicy", types=["Ingress"], ingress=[{"action": "Deny"}])],
        {"shop/cart shop/db 5432/tcp": (HEALTHY, ""), "shop/cart shop/db": (HEALTHY, "")},
    ),
    "a host endpoint": (
        [host_endpoint("node-b", "172.30.0.12"),
         policy("GlobalNetworkPolicy", "default.h", types=["Ingress"], selector="guarded == 'yes'", ingress=[
             {"action": "Allow", "protocol": "TCP", "destination": {"ports": [9797]}}])],
        {
            "shop/cart node-b 8080/tcp": (("cause", HOST, "node-b"), "host endpoint of eth0 on node-b drops tcp 8080"),
            "node-a node-b": (("unknown", HOST, "node-b"), "ask again with such a port"),
            "node-b node-a": (("cause", HOST, "node-b"), "which go out, because no policy is about it"),
            "shop/cart shop/db 5432/tcp": (HEALTHY, ""),  # the tunnel is open between Calico's nodes
        },
    ),
    "refused instead of dropped": (
        [{"apiVersion": "crd.projectcalico.org/v1", "kind": "FelixConfiguration", "metadata": {"name": "default"},
          "spec": {"nftablesFilterDenyAction": "Reject"}}, of_kubernetes(policyTypes=["Ingress"])],
        {"shop/cart shop/db 5432/tcp": (("cause", INGRESS, "node-b"), "node-b refuses tcp 5432")},
    ),
}  # fmt: skip
OF_FAMILIES: dict[str, tuple[list[Object], dict[str, tuple[str, str, set[str]]]]] = {
    "IPv6 is forgotten": ([OF_IPV4], {"shop/cart shop/db 5432/tcp": (FORGETS, "node-b", {"IPv6"}),
                                      "shop/cart shop/db": (FORGETS, "node-b", {"IPv6"})}),
    "IPv4 is forgotten on the way out": (
        [of_kubernetes(**ONLY_CART, policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": "::/0"}}]}])],
        {"shop/cart shop/db 5432/tcp": (FORGETS, "node-a", {"IPv4"}),
         "shop/cart shop/web": (FORGETS, "node-a", {"IPv4"})}),
    "both are denied": ([of_kubernetes(policyTypes=["Ingress"])],
                        {"shop/cart shop/db 5432/tcp": (INGRESS, "node-b", {"IPv4", "IPv6"})}),
    "IPv4 is denied": (
        [policy("NetworkPolicy", "default.four", types=["Egress"], selector="app == 'cart'",
                egress=[{"action": "Deny", "ipVersion": 4}, {"action": "Allow"}])],
        {"shop/cart shop/db 5432/tcp": (EGRESS, "node-a", {"IPv4"}),
         "shop/cart shop/web": (EGRESS, "node-a", {"IPv4"})}),
}  # fmt: skip
BOTH_FAMILIES = [
    [(mode, where) for where in load(mode).WHERE]
    for mode in ("policy_denies_ingress", "policy_denies_egress", "host_endpoint_denies", "endpoint_unknown_to_felix",
                 "calico_reverse_path_drops", "calico_rule_drops", "policy_not_programmed")
    if not needs(mode)
]  # fmt: skip


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    yield from up("")


@pytest.fixture(scope="module")
def dualstack() -> Iterator[Lab]:
    yield from up("dualstack")


def up(variant: str) -> Iterator[Lab]:
    with Lab.up(variant=variant, fixers=False) as running:
        yield running


async def applied(lab: Lab, objects: list[Object]) -> None:
    lab.heal()
    written = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    await asyncio.to_thread(kubectl, lab, "apply", "--validate=false", "-f", "-", given=written)


async def asked(lab: Lab, words: str, wanted: tuple[str, str, str]) -> Diagnosis:
    """As soon as the rules are those of the policies."""
    deadline = time.monotonic() + SETTLED_S
    while True:
        found = (await ask(lab.environment(), words)).diagnosis
        if said(found) == wanted or time.monotonic() > deadline:
            return found


def said(found: Diagnosis) -> tuple[str, str, str]:
    first = next(iter((*found.causes, *found.warnings)), None)
    return found.verdict, first.rule if first else "", first.node if first else ""


@pytest.mark.parametrize("case", CASES)
async def test_what_a_policy_drops_is_named_and_nothing_that_passes_is_accused(lab: Lab, case: str) -> None:
    objects, questions = CASES[case]
    await applied(lab, objects)
    try:
        for words, (wanted, sentence) in questions.items():
            found = await asked(lab, words, wanted)
            assert said(found) == wanted, (words, found.summary)
            assert len(found.causes) == (wanted[0] == "cause"), words
            if sentence:
                (first, *_) = (*found.causes, *found.warnings)
                (drop,) = {fact.id: fact for fact in found.facts if isinstance(fact, RuleDrop)}.values()
                assert sentence in first.text and drop.text in first.text and drop.chain in first.text, first.text
                assert drop.id in first.evidence
    finally:
        lab.heal()


@pytest.mark.parametrize("case", OF_FAMILIES)
async def test_each_family_is_judged_by_itself(dualstack: Lab, case: str) -> None:
    objects, questions = OF_FAMILIES[case]
    await applied(dualstack, objects)
    try:
        for words, (mode, node, families) in questions.items():
            found = await asked(dualstack, words, ("cause", mode, node))
            assert {cause.rule for cause in found.causes} == {mode}, (words, found.summary)
            flows = {leg.flow: f"IPv{leg.family}" for leg in found.facts if isinstance(leg, Leg)}
            hurt = {flow for cause in found.causes for flow in ([cause.flow] if cause.flow else flows)}
            assert {flows[flow] for flow in hurt} == families
            fine = [hop.state for path in found.path if path.flow not in hurt for hop in path.hops]
            assert set(fine) <= {"ok"}
    finally:
        dualstack.heal()


@pytest.mark.parametrize(("mode", "where"), exhaustive.one_of_each(BOTH_FAMILIES))
async def test_wounds_of_ipv6_are_named_at_either_end(dualstack: Lab, mode: str, where: str) -> None:
    dualstack.heal()
    inflicted = dualstack.inflict(mode, where=where, family=6)
    diagnosis = (await ask(dualstack.environment(), words_for(inflicted))).diagnosis
    assert [(cause.rule, cause.node) for cause in told(diagnosis)] == [(mode, inflicted["node"])], diagnosis.summary
    assert {cause.flow.rsplit(" ", 1)[-1] for cause in told(diagnosis)} == {"IPv6"}


async def test_a_forgotten_family_is_told_who_asks_by_an_address_of_it(dualstack: Lab) -> None:
    await applied(dualstack, [OF_IPV4])
    whole = await asked(dualstack, "shop/cart shop/db 5432/tcp", ("cause", FORGETS, "node-b"))
    (address,) = {one.address6 for one in whole.facts if isinstance(one, Endpoint) and one.name == "shop/db"}
    found = await asked(dualstack, f"shop/cart {address} 5432/tcp", ("cause", FORGETS, "node-b"))
    dualstack.heal()
    assert said(found) == ("cause", FORGETS, "node-b"), found.summary
    assert {leg.family for leg in found.facts if isinstance(leg, Leg)} == {6}
