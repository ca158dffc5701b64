"""Where Calico is in iptables mode, with either backend, every wound of policies and firewalls is named first, and a
healthy pair is never accused; without it that mode would be answered by recordings alone.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from facts import CalicoFirewall, Cause, Diagnosis, RuleDrop
from lab import iptables
from lab.client import Lab
from lab.errors import LabError, NamespacesForbidden
from lab.faults import families, load
from lab.firewall.words import iptables_chain
from lab.kernel import FAMILIES
from tests import exhaustive, firewall_zoo
from tests.asking import ask, told, words_for
from tests.doc_commands import OF_IPTABLES_NODES, commands, typed
from tests.test_answers_policies import applied, asked, said
from tests.test_host_firewalls_on_lab import address
from tests.test_lab_iptables import plain
from tests.test_policies_on_lab import of_kubernetes, policy
from tests.test_variants import answers

BACKENDS = (iptables.LEGACY, iptables.NFT)
# Those of policies and of firewalls. conntrack_table_full needs the host's own table.
MODES = (
    "calico_reverse_path_drops",
    "calico_rule_drops",
    "conntrack_invalid_drops",
    "endpoint_unknown_to_felix",
    "firewall_backends_mixed",
    "host_endpoint_denies",
    "host_firewall_drops_forward",
    "host_firewall_drops_local",
    "host_firewall_drops_service",
    "host_firewall_drops_vxlan",
    "kube_proxy_refuses",
    "nat_between_pods",
    "pod_firewall_drops",
    "pod_to_own_node_denied",
    "policy_bypassed",
    "policy_denies_egress",
    "policy_denies_ingress",
    "policy_forgets_address_family",
    "policy_not_enforced",
    "policy_not_programmed",
    "vxlan_source_not_allowed",
)
OF_BOTH = ("pod_to_own_node_denied",)  # a setting of Felix for both families
# Chain and words of the rule that is named, where it is Calico's own.
NAMED = {
    "calico_rule_drops": ("-", "Endpoint admin disabled"),
    "endpoint_unknown_to_felix": ("-wl-dispatch", "Unknown interface"),
    "host_endpoint_denies": ("cali-pi-gnp/guard", ""),
    "pod_to_own_node_denied": ("cali-wl-to-host", "DefaultEndpointToHostAction"),
    "policy_denies_egress": ("cali-po-np/shop/stay", ""),
    "policy_denies_ingress": ("cali-tw-", "End of tier"),
    "vxlan_source_not_allowed": ("cali-INPUT", "VXLAN packets from non-allowed hosts"),
}


PLACES = [[(mode, where) for where in load(mode).WHERE] for mode in MODES]
WOUNDS = [place for places in PLACES for place in places]
# One backend after the other, since each has a lab; first that of the tests above.
WITH_EACH = sorted(
    exhaustive.one_of_each([[(backend, *place) for place in places for backend in BACKENDS] for places in PLACES]),
    key=lambda one: -BACKENDS.index(one.values[0]),
)
DENIED = policy(
    "GlobalNetworkPolicy", "default.early", order=5, types=["Ingress"], selector="app == 'db'",
    ingress=[{"action": "Allow", "protocol": "UDP"},
             {"action": "Deny", "protocol": "TCP", "source": {"selector": "app == 'cart'"}},
             {"action": "Allow"}],
)  # fmt: skip
PASSED = policy(
    "GlobalNetworkPolicy", "early.g", tier="early", types=["Ingress"],
    ingress=[{"action": "Pass", "source": {"selector": "app == 'cart'"}}],
)  # fmt: skip
CLUSTER_WIDE = policy(
    "ClusterNetworkPolicy", version="policy.networking.k8s.io/v1alpha2", tier="Admin", priority=1,
    subject={"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "db"}}}},
    ingress=[{"name": "nobody", "action": "Deny", "from": [{"namespaces": {}}]}],
)  # fmt: skip
REFUSES = {
    "apiVersion": "crd.projectcalico.org/v1",
    "kind": "FelixConfiguration",
    "metadata": {"name": "default"},
    "spec": {"iptablesFilterDenyAction": "Reject"},
}
MANY_PORTS = of_kubernetes(policyTypes=["Ingress"], ingress=[{"ports": [{"port": 1000 + 2 * n} for n in range(20)]}])
# What is applied, who asks shop/db, and words of what is told; "" where it is healthy.
POLICIES: dict[str, tuple[list[Any], str, str]] = {
    "a rule of a policy": ([DENIED], "shop/cart", "by rule 2 of GlobalNetworkPolicy early"),
    "the same about somebody else": ([DENIED], "shop/web", ""),
    "a tier's end": ([policy("Tier", "early", order=10), PASSED], "shop/web", "end of tier early"),
    "who is passed on": ([policy("Tier", "early", order=10), PASSED], "shop/cart", ""),
    "of the whole cluster": ([CLUSTER_WIDE], "shop/cart", "by rule 1 (nobody) of ClusterNetworkPolicy p"),
    "refused": ([REFUSES, of_kubernetes(policyTypes=["Ingress"])], "shop/cart", "node-b refuses tcp 5432"),
    "more ports than one match takes": ([MANY_PORTS], "shop/cart", "(NetworkPolicy shop/p)"),
}


@pytest.fixture(scope="module", params=BACKENDS)
def shared(request: pytest.FixtureRequest) -> Iterator[tuple[str, Lab]]:
    with Lab.up(variant=f"dualstack+iptables-{request.param}", fixers=False) as lab:
        yield request.param, lab


def by_turns(backend: str, number: int, of: Collection[int]) -> int:
    """The address family, another one with each backend; `make score` inflicts everything with both."""
    return [*of][(BACKENDS.index(backend) + number) % len(of)]


async def test_healthy_pairs_are_called_healthy_and_their_nodes_filter_by_iptables(shared: tuple[str, Lab]) -> None:
    """All pairs are asked about in tests/test_variants.py."""
    backend, lab = shared
    lab.heal()
    found = await answers(lab, ["shop/cart shop/db 5432/tcp", "shop/db shop/mail 8080/udp", "shop/mail shop/search"])
    assert [(one.verdict, one.causes, one.warnings, one.blind) for one in found] == [("healthy", (), (), ())] * 3
    walls = {fact for one in found for fact in one.facts if isinstance(fact, CalicoFirewall)}
    assert {(wall.backends, wall.entered) for wall in walls} == {((f"iptables-{backend}",), (f"iptables-{backend}",))}
    assert {(wall.node, wall.family) for wall in walls} == {(f"node-{n}", family) for n in "abc" for family in (4, 6)}


def test_what_the_runbook_has_people_type_on_such_a_node_is_answered_there(shared: tuple[str, Lab]) -> None:
    _, lab = shared
    found = commands(*OF_IPTABLES_NODES)
    assert found
    for one in found:
        for argv in typed(one.text):
            done = lab.exec("node-a", *argv)
            assert done.returncode == 0, f"{one}: {done.stderr}"


@pytest.mark.parametrize(("shared", "mode", "where"), WITH_EACH, indirect=["shared"])
async def test_every_wound_is_named_first_on_its_node(shared: tuple[str, Lab], mode: str, where: str) -> None:
    backend, lab = shared
    family = by_turns(backend, WOUNDS.index((mode, where)), families(mode))
    lab.heal()
    inflicted = lab.inflict(mode, where=where, family=family)
    diagnosis = (await ask(lab.environment(), words_for(inflicted))).diagnosis
    found = told(diagnosis, mode)
    assert {(cause.rule, cause.node) for cause in found} == {(mode, inflicted["node"])}, diagnosis.summary
    if mode not in OF_BOTH:
        assert {cause.flow.rsplit(" ", 1)[-1] for cause in found} <= {"", f"IPv{family}"}  # "": all that was asked
    if mode in NAMED:
        chain, words = NAMED[mode]
        for drop in dropped(diagnosis, found[0]):
            assert drop.backend == f"iptables-{backend}" and drop.text in found[0].text
            assert chain in drop.chain and words in drop.comment


def dropped(diagnosis: Diagnosis, cause: Cause) -> list[RuleDrop]:
    """What a cause is proved by; never nothing."""
    found = [fact for fact in diagnosis.facts if isinstance(fact, RuleDrop) and fact.id in cause.evidence]
    assert found, cause.text
    return found


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize(("shared", "case"), exhaustive.matrix(2, BACKENDS, POLICIES), indirect=["shared"])
async def test_a_policy_that_is_applied_is_programmed_and_its_rule_is_named(shared: tuple[str, Lab], case: str) -> None:
    backend, lab = shared
    objects, source, sentence = POLICIES[case]
    family = by_turns(backend, list(POLICIES).index(case), FAMILIES)
    await applied(lab, objects)
    try:
        words = f"{source} {address(lab, 'shop/db', family)} 5432/tcp"
        wanted = ("cause", "policy_denies_ingress", "node-b") if sentence else ("healthy", "", "")
        found = await asked(lab, words, wanted)
    finally:
        lab.heal()
    assert said(found) == wanted, found.summary
    if sentence:
        (cause,) = found.causes
        assert sentence in cause.text
        for drop in dropped(found, cause):
            assert drop.backend == f"iptables-{backend}" and drop.text in cause.text and drop.chain in cause.text


def test_the_kernel_holds_what_the_rules_say(shared: tuple[str, Lab]) -> None:
    """Every word a rule can have, in both families, refused or dropped, of an old Calico and a new one."""
    backend, lab = shared
    here = str(Path(__file__).resolve().parents[1])
    done = lab.exec("node-c", "env", f"PYTHONPATH={here}", sys.executable, "-m", "tests.firewall_zoo", backend)
    lab.heal()
    assert done.returncode == 0, done.stderr
    by_case = json.loads(done.stdout)
    cases = dict(firewall_zoo.cases(in_iptables=True))
    assert by_case.keys() == cases.keys()
    for name, ruleset in cases.items():
        for chain in ruleset.chains:
            table, called = iptables_chain(chain.name)
            held = [plain(rule) for rule in by_case[name][table].get(called, [])]
            assert held == [plain(rule.saved) for rule in chain.rules], (name, called)


def test_what_somebody_did_to_the_firewall_is_healed_away(shared: tuple[str, Lab]) -> None:
    backend, lab = shared
    tool = f"iptables-{backend}"
    lab.heal()
    whole = listing(lab, tool)
    for wound in (
        (tool, "-I", "FORWARD", "-j", "DROP"),
        (tool, "-F", "cali-from-wl-dispatch"),
        (tool, "-F"),
        ("ipset", "flush", "cali40all-vxlan-net"),
        (tool, "-P", "FORWARD", "DROP"),
    ):
        done = lab.exec("node-b", *wound)
        assert done.returncode == 0, done.stderr
        lab.heal()
        assert lab.mesh()["unanswered"] == []
        assert listing(lab, tool) == whole


def listing(lab: Lab, tool: str) -> list[str]:
    rules, sets = lab.exec("node-b", f"{tool}-save").stdout, lab.exec("node-b", "ipset", "save", "-sorted").stdout
    return [re.sub(r" ?\[\d+:\d+\]| initval \w+", "", line) for line in (rules + sets).splitlines() if line[:1] != "#"]


def test_a_fault_of_nftables_mode_says_so(shared: tuple[str, Lab]) -> None:
    backend, lab = shared
    with pytest.raises(LabError, match=f"one of nftables mode, and node-a has iptables-{backend}"):
        lab.inflict("firewall_sets_empty")


def test_a_machine_without_the_tools_is_told_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(iptables, "PATH", str(tmp_path))
    with pytest.raises(NamespacesForbidden, match="this machine has no ip6tables-legacy; on Debian: apt install"):
        iptables.Tools(iptables.LEGACY, 6)
