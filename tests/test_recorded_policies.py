"""Every flow that was tried against a running Calico with policies of every kind: what is said of it is what it met.

The objects are read through the bot's own client from an API server, so translation and judgement are tried together.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from bot.sources.policies import policies
from bot.words import parse
from engine.opinions import opinions, told
from facts import Fact, PolicyAllows, PolicyOpinion
from tests.recorded import Object, objects, served
from tests.recordings import load

CLUSTER = "v3.32.1/healthy"
ZOO = {name: content for name, content in load("v3.32.1/loose").items() if name.startswith("policy-zoo/")}
FLOWS: list[Object] = ZOO["policy-zoo/table.json"]
DROPPED = "timeout"
NODES = {"172.30.0.11": "node-a", "172.30.0.13": "node-c"}  # no pod of the recorded cluster has their address


def of_set(name: str) -> list[Object]:
    """The objects of one set of policies. Pods and namespaces were the same in all of them."""
    shared = "policy-zoo/00-no-policy/objects/"
    own = f"policy-zoo/{name}/objects/"
    kinds = ("namespaces", "nodes", "serviceaccounts", "pods")
    files = [f"{shared}{kind}.json" for kind in kinds] + [one for one in ZOO if one.startswith(own)]
    found = {(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]): one for file in files
             for one in ZOO[file]["items"]}  # fmt: skip
    calico = [one for one in objects(CLUSTER) if one["kind"] in ("ClusterInformation", "IPPool", "IPAMBlock")]
    return [*found.values(), *calico]


async def asked(flow: Object, directory: Path, *, group: str = "crd.projectcalico.org") -> list[Fact]:
    """What the API says of both ends of a recorded flow, policies included."""
    address, _, port = flow["dst"].partition(":")
    source = flow["src"].replace("host-", "node-")
    address = NODES.get(address, address)
    async with served(of_set(flow["set"]), directory, group=group) as world, world.cluster() as cluster:
        known = await cluster.look(parse([source, address, f"{port}/tcp"]))
        return [*known, *await policies(cluster, known)]


def said(facts: list[Fact], protocol: str = "tcp") -> list[PolicyOpinion]:
    return [
        one
        for one in opinions(facts)
        if isinstance(one, PolicyOpinion) and one.leg == "forward" and one.protocol == protocol
    ]


@pytest.mark.parametrize("flow", FLOWS, ids=[f"{one['set']}: {one['flow']}" for one in FLOWS])
async def test_what_is_said_of_a_flow_is_what_it_met(flow: Object, tmp_path: Path) -> None:
    facts = await asked(flow, tmp_path)
    found, port = said(facts), flow["dst"].partition(":")[2]
    denied = [one for one in found if one.verdict == "deny"]
    assert found and all(one.verdict in ("allow", "deny") for one in found)
    assert bool(denied) == (flow["result"] == DROPPED), [told(one) for one in found]
    (passes,) = [one for one in opinions(facts) if isinstance(one, PolicyAllows) and one.leg == "forward"]
    assert among(passes.allowed, int(port)) != bool(denied)
    if denied:
        (one,) = denied
        assert (one.node, *decided(one)) == counted(flow)


def among(allowed: tuple[str, ...], port: int) -> bool:
    """Is this TCP port one of those?"""
    spans = [one.removesuffix("/tcp").split("-") for one in allowed if one.endswith("/tcp")]
    return "tcp" in allowed or any(int(span[0]) <= port <= int(span[-1]) for span in spans)


def decided(one: PolicyOpinion) -> tuple[str, str]:
    """The chain a drop is counted in and what the rule says, as far as both are known without a hash."""
    if one.by == "end of tier":
        chain = {("pod", "ingress"): "cali-tw-", ("pod", "egress"): "cali-fw-", ("host", "ingress"): "cali-fh-"}
        return chain[one.endpoint_kind, one.direction], f"End of tier {one.tier}."
    assert (one.by, one.direction) == ("rule", "ingress")
    kinds = {"NetworkPolicy": "np", "GlobalNetworkPolicy": "gnp", "KubernetesClusterNetworkPolicy": "kcnp"}
    where = f"{one.namespace}/{one.name}" if one.namespace else one.name
    identity = f"{kinds[one.kind]}/{where}"
    readable = f"cali-pi-{identity}"
    digest = base64.urlsafe_b64encode(hashlib.sha256(identity.encode()).digest()).decode()
    return (readable if len(readable) <= 28 else f"cali-pi-_{digest}"[:28]), f"rule {one.rule_name}"


def counted(flow: Object) -> tuple[str, str, str]:
    """Node, chain and rule that counted the drop, in the words of `decided`."""
    ((node, (rule,)),) = flow["drop_rules"].items()
    layer = "filter-" if rule["chain"].startswith("filter-") else "filter "
    chain, text = rule["chain"].removeprefix(layer), rule["rule"]
    if found := re.search(r"End of tier [\w-]+\.", text):
        return node, chain[:8], found[0]
    if layer == "filter-" and len(chain) > 28:  # nftables keeps the names that iptables must shorten
        identity = chain.removeprefix("cali-pi-")
        chain = "cali-pi-_" + base64.urlsafe_b64encode(hashlib.sha256(identity.encode()).digest()).decode()
    name = re.search(r"name=([\w-]+)", text)
    return node, chain[:28], f"rule {name[1] if name else ''}"


def test_the_flows_are_all_there() -> None:
    assert len(FLOWS) == 72
    assert {flow["result"] for flow in FLOWS} == {"connected", DROPPED}
