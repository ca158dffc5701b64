"""What is read of the policies about two pods, from either store; and what is said when some of it may not be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bot.sources.policies import policies
from bot.words import parse
from engine.opinions import opinions, told
from facts import (
    Blind,
    Fact,
    LabelledEndpoint,
    NetworkSet,
    PoliciesRead,
    Policy,
    PolicyAllows,
    PolicyOpinion,
    Tier,
)
from tests.recorded import Object, World, objects, served

HEALTHY = "v3.32.1/healthy"
GROUPS = {"crd.projectcalico.org": "crd.projectcalico.org/v1", "projectcalico.org": "projectcalico.org/v3"}
F = TypeVar("F", bound=Fact)
A1, B1 = "default/pod-a1", "default/pod-b1"


def of(facts: Sequence[Fact], kind: type[F]) -> list[F]:
    return [one for one in facts if isinstance(one, kind)]


def about(facts: Sequence[Fact]) -> int:
    """Facts that policies are judged by."""
    return sum(isinstance(one, Policy | Tier | NetworkSet | LabelledEndpoint) for one in facts)


def calico(kind: str, name: str, namespace: str = "", *, labels: Object | None = None, **spec: Any) -> Object:
    meta = {"name": name, **({"namespace": namespace} if namespace else {}), "labels": dict(labels or {})}
    return {"apiVersion": GROUPS["crd.projectcalico.org"], "kind": kind, "metadata": meta, "spec": spec}


def network_policy(name: str, namespace: str = "default", **spec: Any) -> Object:
    meta = {"name": name, "namespace": namespace}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta,
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], **spec},
    }


async def read(world: World, *words: str, **fields: Any) -> list[Fact]:
    async with world.cluster(**fields) as cluster:
        known = await cluster.look(parse(words))
        world.asked.clear()
        return [*known, *await policies(cluster, known)]


EVERY_KIND = [
    network_policy("web"),
    network_policy("elsewhere", "kube-system"),
    network_policy("others", podSelector={"matchLabels": {"app": "nobody"}}),
    calico("NetworkPolicy", "np", "default", types=["Ingress"], order=5),
    calico("GlobalNetworkPolicy", "default.old", types=["Egress"], tier="default"),
    calico("GlobalNetworkPolicy", "nobody", selector="app == 'nobody'"),
    calico("StagedGlobalNetworkPolicy", "would", types=["Ingress"], ingress=[{"action": "Deny"}]),
    calico("StagedKubernetesNetworkPolicy", "soon", "default", podSelector={}, policyTypes=["Ingress"]),
    calico("StagedNetworkPolicy", "never", "default", stagedAction="Ignore"),
    calico("GlobalNetworkSet", "near", nets=["10.244.218.0/24"], labels={"near": "yes"}),
    calico("GlobalNetworkSet", "far", nets=["192.0.2.0/24"]),
    calico("HostEndpoint", "node-a-all", node="node-a", interfaceName="*", expectedIPs=["172.30.0.11"]),
    calico("HostEndpoint", "node-z-all", node="node-z", interfaceName="*"),
    calico("FelixConfiguration", "node.node-a", failsafeInboundHostPorts=[{"protocol": "TCP", "port": 2222}]),
    {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "cnp"},
        "spec": {
            "tier": "Admin",
            "priority": 3,
            "subject": {"namespaces": {}},
            "ingress": [{"action": "Deny", "from": [{"namespaces": {"matchLabels": {"team": "x"}}}]}],
        },
    },
]


@pytest.mark.parametrize("group", GROUPS)
async def test_policies_about_both_pods_are_read_from_either_store(tmp_path: Path, group: str) -> None:
    async with served([*objects(HEALTHY), *EVERY_KIND], tmp_path, group=group) as world:
        facts = await read(world, A1, B1, "80/tcp")
    assert {(one.kind, one.namespace, one.name, one.staged) for one in of(facts, Policy)} == {
        ("KubernetesNetworkPolicy", "default", "web", False),
        ("KubernetesNetworkPolicy", "default", "soon", True),
        ("NetworkPolicy", "default", "np", False),
        ("GlobalNetworkPolicy", "", "old", False),
        ("GlobalNetworkPolicy", "", "would", True),
        ("KubernetesClusterNetworkPolicy", "", "cnp", False),
    }
    assert {one.name: one.order for one in of(facts, Policy)}["np"] == "5"
    assert {(one.name, one.order) for one in of(facts, Tier)} >= {("default", "1000000")}
    assert [(one.name, one.nets) for one in of(facts, NetworkSet)] == [("near", ("10.244.218.0/24",))]
    ends = {one.name: one for one in of(facts, LabelledEndpoint)}
    assert set(ends) == {A1, B1, "node-a-all"}
    assert dict(ends[A1].labels)["projectcalico.org/namespace"] == "default"
    assert dict(ends[A1].namespace_labels)["projectcalico.org/name"] == "default"
    assert ends["node-a-all"].failsafe_in == ("2222/tcp",)
    assert of(facts, PoliciesRead) == [PoliciesRead(told=about(facts))]


async def test_a_cluster_without_policies_allows_everything(tmp_path: Path) -> None:
    async with served(objects(HEALTHY), tmp_path) as world:
        facts = await read(world, A1, B1)
        paths = [path for path, _ in world.asked]
    said = opinions(facts)
    assert {(one.direction, one.by) for one in of(said, PolicyOpinion)} == {
        ("egress", "profile"),
        ("ingress", "profile"),
    }
    assert {one.allowed for one in of(said, PolicyAllows)} == {("tcp", "udp", "sctp", "icmp")}
    assert len(paths) == len(set(paths)) <= 18  # nothing is read twice


async def test_kinds_a_cluster_does_not_have_are_no_loss(tmp_path: Path) -> None:
    async with served(objects(HEALTHY), tmp_path) as world:
        for definition in ("clusternetworkpolicies.policy.networking.k8s.io", "tiers.crd.projectcalico.org",
                           "stagednetworkpolicies.crd.projectcalico.org"):  # fmt: skip
            world.store.delete("customresourcedefinitions", definition)
        facts = await read(world, A1, B1)
    assert of(facts, PoliciesRead) == [PoliciesRead(told=about(facts))]
    assert not of(facts, Tier)
    assert all(one.verdict == "allow" for one in of(opinions(facts), PolicyOpinion))
    less = [one for one in facts if one != of(facts, LabelledEndpoint)[0]]
    assert all(one.verdict == "unknown" for one in of(opinions(less), PolicyOpinion)), "part of it went astray"


async def test_what_may_not_be_read_makes_every_opinion_unknown(tmp_path: Path) -> None:
    """A policy nobody could see may allow what the others deny, or deny it before they are asked."""
    less = frozenset({("list", "*", "globalnetworkpolicies"), ("get", "", "namespaces")})
    denies = network_policy("deny-all")
    async with served([*objects(HEALTHY), denies], tmp_path, denied={"blinkered": less}) as world:
        facts = await read(world, A1, B1, "80/tcp", token="blinkered")
    assert of(facts, PoliciesRead)[0].missing == ("globalnetworkpolicies", "namespaces")
    hidden = [one for one in of(facts, Blind) if one.look in ("globalnetworkpolicies", "namespaces")]
    assert len(hidden) == 2
    assert all(one.minor and "what the policies allow is not known" in one.reason for one in hidden)
    said = opinions(facts)
    assert {(one.verdict, one.doubt) for one in of(said, PolicyOpinion)} == {("unknown", "read")}
    assert not of(said, PolicyAllows)
    assert "could be read" in told(of(said, PolicyOpinion)[0])


async def test_a_policy_of_an_unknown_form_counts_as_not_read(tmp_path: Path) -> None:
    """It may mean anything, and costs nothing but the opinion."""
    odd = calico("GlobalNetworkPolicy", "odd", ingress=[{"destination": {"ports": [80]}}])
    async with served([*objects(HEALTHY), odd, network_policy("web")], tmp_path) as world:
        facts = await read(world, A1, B1)
    assert of(facts, PoliciesRead)[0].missing == ("globalnetworkpolicies",)
    assert [one.name for one in of(facts, Policy)] == ["web"]
    assert any("odd has a form that is not known" in one.reason for one in of(facts, Blind))


@pytest.mark.parametrize(("version", "unknown"), [("v3.31.0", True), ("v3.28.2", False), ("v3.32.1", False)])
async def test_admin_policies_of_an_old_calico_make_the_opinion_unknown(
    tmp_path: Path, version: str, unknown: bool
) -> None:
    kind = "AdminNetworkPolicy"
    names = {"plural": "adminnetworkpolicies", "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "adminnetworkpolicies.policy.networking.k8s.io"},
        "spec": {"group": "policy.networking.k8s.io", "scope": "Cluster", "names": names,
                 "versions": [{"name": "v1alpha1", "served": True, "storage": True, "schema": schema}]},
    }  # fmt: skip
    admin = {"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": kind, "metadata": {"name": "a"}, "spec": {}}
    async with served([*objects(HEALTHY), definition, admin], tmp_path) as world:
        world.change("clusterinformations", "default", calicoVersion=version)
        facts = await read(world, A1, B1)
    assert of(facts, PoliciesRead)[0].missing == (("adminnetworkpolicies",) if unknown else ())


async def test_staged_policies_that_may_not_be_read_are_no_loss(tmp_path: Path) -> None:
    less = frozenset({("list", "*", "stagednetworkpolicies")})
    async with served(objects(HEALTHY), tmp_path, denied={"some": less}) as world:
        facts = await read(world, A1, B1, token="some")
    assert of(facts, PoliciesRead) == [PoliciesRead(told=about(facts), staged_read=False)]


async def test_what_a_staged_policy_would_do_is_told_apart(tmp_path: Path) -> None:
    staged = calico("StagedGlobalNetworkPolicy", "would", types=["Ingress"], ingress=[{"action": "Deny"}])
    async with served([*objects(HEALTHY), staged], tmp_path) as world:
        facts = await read(world, A1, B1, "80/tcp")
    (into,) = [one for one in of(opinions(facts), PolicyOpinion)
               if (one.leg, one.direction, one.protocol) == ("forward", "ingress", "tcp")]  # fmt: skip
    assert (into.verdict, into.staged, into.staged_by) == ("allow", "deny", ("GlobalNetworkPolicy would",))


async def test_endpoints_of_a_service_a_rule_names(tmp_path: Path) -> None:
    policy = calico("GlobalNetworkPolicy", "to-web", selector="all()", types=["Egress"], egress=[
        {"action": "Allow", "destination": {"services": {"name": "web", "namespace": "default"}}}])  # fmt: skip

    def slice_of(address: str) -> Object:
        return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
                "endpoints": [{"addresses": [address]}], "ports": [{"port": 80, "protocol": "TCP"}]}  # fmt: skip

    found = []
    for behind in ("10.244.218.68", "10.244.9.9"):
        async with served([*objects(HEALTHY), policy, slice_of(behind)], tmp_path) as world:
            facts = await read(world, "10.244.174.132", "10.244.218.68", "80/tcp")
        found.append([one.allowed for one in of(opinions(facts), PolicyAllows) if one.leg == "forward"])
    assert found == [[("80/tcp",)], [()]]


async def test_an_end_of_a_tier_is_said_with_the_policies_that_were_asked(tmp_path: Path) -> None:
    only = network_policy("only-db", ingress=[{"ports": [{"port": 5432}]}])
    async with served([*objects(HEALTHY), only], tmp_path) as world:
        facts = await read(world, A1, B1, "80/tcp")
    said = opinions(facts)
    into = [one for one in of(said, PolicyOpinion) if (one.leg, one.direction) == ("forward", "ingress")]
    assert [told(one) for one in into] == [
        f"{packet} into {B1} is dropped at the end of tier default: none of its policies there allows it "
        "(NetworkPolicy default/only-db)."
        for packet in ("icmp", "tcp 80")
    ]
    assert [one.allowed for one in of(said, PolicyAllows) if one.leg == "forward"] == [("5432/tcp",)]
