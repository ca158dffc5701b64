"""What a running Calico looked like, state by state, pod pair by pod pair: each gets the verdict that was true of it.

Nothing of it is our lab: objects, kernels and pods are recorded, the API client, the plan, the probe's collectors and
the rules are the product's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import pytest

from bot.sources.names import veth_name
from engine import rulebase
from facts import Diagnosis, Fact, NodeAsk, RuleDrop, SendProbe, Trace
from node_probe.firewall.drops import Counted, grown
from tests.exhaustive import Cells
from tests.recorded_answers import cluster_of, followed, judged, known
from tests.recorded_firewall import ruleset
from tests.recorded_kernel import Object, Recording
from tests.recorded_states import recorded, whole_states
from tests.recordings import load
from tests.test_firewall_ruleset import FLOWS, before_and_after
from tests.test_recorded_policies import of_set

NOBODY = frozenset[str]()
EVERY_NODE = ""
ANYBODY = "*"


class State(NamedTuple):
    """The failure modes one of which must be named, alone; anything else named is a false accusation."""

    hurt: frozenset[str] = NOBODY  # between the node `at` and any other
    at: str = EVERY_NODE
    everybody: frozenset[str] = NOBODY  # all pairs
    waiting: frozenset[str] = NOBODY  # where a pod of the pair has no address yet
    warns: frozenset[str] = NOBODY  # what may be told beside it
    shut: str = ""  # a pod that a policy keeps pings from
    shut_to: str = ""  # from this pod alone; "" from every one
    lets: str = ""  # the pod that may send it something else; ANYBODY
    counted: tuple[str, str, int] = ("", "", 0)  # rulesets before and after so many pings, on the pod's node
    recorded: bool = True  # False: in part, so that no answer can be "healthy"


POOL_DISABLED = State(hurt=frozenset({"pool_disabled"}))
EXHAUSTED = frozenset({"pool_exhausted", "strict_affinity_without_block"})
LEAKS = frozenset({"ip_leaked", "ipam_gc_stuck"})
# The policies that let some packets in let no ping in.
DENY, ALLOW, EXPLICIT = (
    ("1-deny-idle", "2-deny-probed"),
    ("3-allow-idle", "4-allow-probed"),
    (
        "5-gnp-deny-idle",
        "6-gnp-deny-probed",
    ),
)
STATES = {
    "master-87c15906f20c/healthy": State(),
    "master-87c15906f20c/ip-cooldown/after-del": State(),
    "master-87c15906f20c/ip-cooldown/before": State(),
    "master-87c15906f20c/pool-disabled": POOL_DISABLED,
    "v3.31.7/healthy-always": State(),
    "v3.31.7/healthy-crosssubnet-same-subnet": State(),
    "v3.31.7/pool-disabled": POOL_DISABLED,
    "v3.32.1/crosssubnet": State(),
    "v3.32.1/dualstack/healthy": State(),
    "v3.32.1/dualstack/status-podips-v4-only": State(everybody=frozenset({"pod_address_family_missing"})),
    "v3.32.1/exhaustion/1-tunnel-borrowed": State(),
    "v3.32.1/exhaustion/2-pods-borrowed": State(),
    "v3.32.1/exhaustion/3-strict-affinity": State(waiting=EXHAUSTED),
    "v3.32.1/exhaustion/4-strict-tunnel-lost": State(
        hurt=frozenset({"tunnel_address_missing"}), at="node-c", waiting=EXHAUSTED
    ),
    # Borrowing was allowed again a moment before: the pool is not the reason any more, the pod only waits.
    "v3.32.1/exhaustion/6-strict-off": State(),
    "v3.32.1/exhaustion/7-pool-full": State(waiting=frozenset({"pool_exhausted"}), warns=LEAKS),
    "v3.32.1/healthy": State(),
    "v3.32.1/leaks/1-before": State(warns=LEAKS),
    "v3.32.1/leaks/3-locked": State(warns=LEAKS | {"datastore_not_ready"}),
    "v3.32.1/nftables-mode-auto/after-kube-proxy-nftables": State(recorded=False),
    "v3.32.1/nftables-mode/0-before-switch": State(),
    "v3.32.1/nftables-mode/1-after-switch": State(),
    **{
        f"v3.32.1/policy-{mode}/{step}": State()
        for mode in ("iptables", "nftables")
        for step in ("0-before", "7-after")
    },
    **{f"v3.32.1/policy-iptables/{step}": State(shut="default/pod-c1", counted=(*DENY, 6)) for step in DENY},
    **{f"v3.32.1/policy-nftables/{step}": State(shut="default/p-c1", counted=(*DENY, 6)) for step in DENY},
    **{
        f"v3.32.1/policy-iptables/{step}": State(shut="default/pod-c1", lets="default/pod-b2", counted=(*ALLOW, 3))
        for step in ALLOW
    },
    **{
        f"v3.32.1/policy-nftables/{step}": State(shut="default/p-c1", lets=ANYBODY, counted=(*ALLOW, 3))
        for step in ALLOW
    },
    **{
        f"v3.32.1/policy-iptables/{step}": State(
            shut="default/pod-c1", shut_to="default/pod-b2", counted=(*EXPLICIT, 2)
        )
        for step in EXPLICIT
    },
    **{f"v3.32.1/policy-nftables/{step}": State() for step in EXPLICIT},  # of one port
    # In the clusters of 202 nodes two pods are no host's own: no more pairs are there.
    "v3.32.1/scale/200-nodes": State(recorded=False),
    "v3.32.1/scale/5-blocks-one-node": State(recorded=False),
    "v3.32.1/scale/after-delete": State(recorded=False),
}


ASKED = Cells(every=6)  # pairs of a state


class Pod(NamedTuple):
    name: str
    node: str
    address: str


def pods_of(recording: Recording) -> list[Pod]:
    """Scheduled pods with a network of their own."""
    return [
        Pod(f"{one['metadata']['namespace']}/{one['metadata']['name']}", node, one["status"].get("podIP", ""))
        for one in recording.objects
        if one["kind"] == "Pod" and (node := one["spec"].get("nodeName")) and not one["spec"].get("hostNetwork")
    ]


def wanted(state: State, source: Pod, target: Pod) -> tuple[str, frozenset[str]]:
    """(verdict, failure modes one of which is named)"""
    waits = not (source.address and target.address)
    apart = source.node != target.node and state.at in (source.node, target.node, EVERY_NODE)
    modes = state.everybody or (state.waiting if waits else state.hurt if apart else NOBODY)
    if modes:
        return "cause", modes
    return ("unknown" if waits or not state.recorded else "healthy"), modes


def is_shut(state: State, source: Pod, target: Pod) -> bool:
    """Does a policy drop pings from the one to the other?"""
    return bool(source.address) and target.name == state.shut and state.shut_to in (source.name, "")


def counting(name: str, at: str) -> Callable[[str, Trace], list[Fact]]:
    """What the counters of that state's node say of pings to the pod that is shut."""
    before, after, packets = STATES[name].counted
    where = name.rpartition("/")[0].removeprefix("v3.32.1/")

    def told(node: str, packet: Trace) -> list[Fact]:
        if node != at or packet.reply:
            return []
        rulesets = (ruleset(f"{where}/{state}/{at}") for state in (before, after))
        return list(grown(node, [Counted(packet, packets)], *rulesets))

    return told


def passing(ask: NodeAsk, probe: SendProbe) -> str:
    """Every ping between pods that was recorded beside these states came back, except where packets were lost."""
    return "answered"


def told(source: str, target: str, diagnosis: Diagnosis) -> tuple[object, ...]:
    """What a failing test says."""
    causes = [(cause.rule, cause.node, cause.text) for cause in diagnosis.causes]
    return source, target, diagnosis.verdict, causes, [one.rule for one in diagnosis.warnings], diagnosis.summary


@pytest.mark.parametrize("name", STATES)
async def test_every_pod_pair_gets_the_verdict_that_was_true_of_it(name: str, tmp_path: Path) -> None:
    state, recording = STATES[name], recorded(name)

    def kind(pair: tuple[Pod, Pod]) -> tuple[object, ...]:
        return name, pair[0].node == pair[1].node, is_shut(state, *pair), wanted(state, *pair)

    wrong = []
    async with cluster_of(recording, tmp_path) as cluster:
        for source, target in ASKED.of(name, [*permutations(pods_of(recording), 2)], kind):
            verdict, modes = wanted(state, source, target)
            lost = bool(modes) and modes == state.hurt
            shut = is_shut(state, source, target)
            if shut:  # other packets that a policy lets pass make a dropped ping no cause
                lets, lost, modes = state.lets in (source.name, ANYBODY), True, frozenset({"policy_denies_ingress"})
                verdict = "unknown" if lets else "cause"

            def met(ask: NodeAsk, probe: SendProbe, lost: bool = lost) -> str:
                return "silence" if lost and probe.pod else "answered"

            facts = await known(cluster, source.name, target.name)
            if shut:
                diagnosis = await followed(cluster, facts, recording, met, counting(name, target.node))
            else:
                diagnosis = judged(facts, recording, met)
            named = {cause.rule for cause in diagnosis.causes}
            warned = {warning.rule for warning in diagnosis.warnings}
            if verdict == "unknown" and shut:
                named, warned = warned, named
            right = diagnosis.verdict == verdict and len(named) == bool(modes) and named <= modes
            if not right or not warned <= state.warns:
                wrong.append(told(source.name, target.name, diagnosis))
    assert wrong == []


@pytest.mark.parametrize("name", [name for name, state in STATES.items() if not (state.hurt or state.shut)])
async def test_no_node_is_accused_where_a_node_is_asked_about(name: str, tmp_path: Path) -> None:
    """Nodes and pods, and nodes among themselves: packets pass between them in all of these states."""
    recording = recorded(name)
    nodes = sorted(recording.nodes)
    pods = [pod.name for pod in pods_of(recording) if pod.address][:3]
    questions = [*permutations(nodes, 2), *((pod, node) for pod in pods for node in nodes)]
    questions += [(node, pod) for pod, node in questions if pod in pods]
    wrong = []

    def kind(pair: tuple[str, str]) -> tuple[object, ...]:
        return name, pair[0] in nodes, pair[1] in nodes

    async with cluster_of(recording, tmp_path) as cluster:
        for source, target in ASKED.of(name, questions, kind):
            diagnosis = judged(await known(cluster, source, target), recording, passing)
            if {cause.rule for cause in diagnosis.causes} - STATES[name].everybody:
                wrong.append(told(source, target, diagnosis))
    assert wrong == []


def test_every_recorded_state_is_asked_about() -> None:
    assert set(whole_states()) == STATES.keys()


def test_every_failure_mode_of_the_table_exists() -> None:
    """Of each set one: a state nobody could name would be passed over."""
    there = {rule.name for rule in rulebase.load().rules}
    for name, state in STATES.items():
        for modes in (state.hurt, state.everybody, state.waiting):
            assert modes == NOBODY or modes & there, name


# -- policies ----------------------------------------------------------------------------------------------------------

# The policies were recorded as objects and as what packets met, on a cluster with the names and addresses of this one.
ZOO_BASE = "v3.32.1/dualstack/healthy"


def flows() -> Iterator[tuple[str, str, str, int, str]]:
    """(set of policies, source, target, port, what packets met) of each recorded flow between two pods of the base."""
    by_address = {pod.address: pod.name for pod in pods_of(recorded(ZOO_BASE))}
    for one in load("v3.32.1/loose")["policy-zoo/table.json"]:
        address, _, port = one["dst"].partition(":")
        source = one["src"] if "/" in one["src"] else f"default/{one['src']}"
        if source in by_address.values() and address in by_address:
            yield one["set"], source, by_address[address], int(port), one["result"]


def with_policies(name: str) -> Recording:
    """The base with one set of policies, and the labels that pods and namespaces had with it."""
    found = recorded(ZOO_BASE)
    labels = {
        (one["kind"], one["metadata"]["name"]): one["metadata"].get("labels") or {}
        for one in of_set(name)
        if one["kind"] in ("Pod", "Namespace")
    }
    for one in found.objects:
        if told := labels.get((one["kind"], one["metadata"]["name"])):
            one["metadata"]["labels"] = told
    there = {(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in found.objects}
    kept = ("Pod", "Node", "ClusterInformation", "IPPool", "IPAMBlock")
    found.objects += [
        one
        for one in of_set(name)
        if one["kind"] not in kept
        and (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) not in there
    ]
    return found


DROPPED_BY = {"tw": "policy_denies_ingress", "pi": "policy_denies_ingress", "fw": "policy_denies_egress"}


@pytest.mark.parametrize("name", sorted({one[0] for one in flows() if one[-1] == "timeout"}))
async def test_what_a_policy_drops_is_put_on_that_policy(name: str, tmp_path: Path) -> None:
    """The second look's answer out of the counters of both modes. Flows of nodes are not among the base's pods."""
    recording = with_policies(name)
    names = {pod.address: pod.name for pod in pods_of(recording)}
    wrong = []
    async with cluster_of(recording, tmp_path) as cluster:
        for flow in (one for one in FLOWS if one["set"] == name and one["result"] == "timeout"):
            address, _, port = flow["dst"].partition(":")
            source = flow["src"] if "/" in flow["src"] else f"default/{flow['src']}"
            ((node, (rule,)),) = flow["drop_rules"].items()
            if source not in names.values() or address not in names:
                continue

            def met(ask: NodeAsk, probe: SendProbe, source: str = source) -> str:
                return "silence" if probe.pod == source and probe.protocol == "tcp" else "answered"

            def counted(
                at: str, packet: Trace, flow: Object = flow, node: str = node, rule: Object = rule
            ) -> list[Fact]:
                if at != node or packet.reply:
                    return []
                return list(grown(node, [Counted(packet, rule["packets"])], *before_and_after(flow, node)))

            facts = await known(cluster, source, f"{names[address]} {port}/tcp", family=4)
            diagnosis = await followed(cluster, facts, recording, met, counted)
            layer = re.search(r"cali-(tw|pi|fw|fhfw)-", rule["chain"])
            by = "host_endpoint_denies" if name.startswith("16") else DROPPED_BY[layer[1] if layer else ""]
            if [(one.rule, one.node) for one in diagnosis.causes] != [(by, node)] or diagnosis.warnings:
                wrong.append(told(source, names[address], diagnosis))
    assert wrong == []


async def test_what_a_policy_drops_is_never_put_on_anything_else(tmp_path: Path) -> None:
    """Nor where nobody could follow the packets."""
    recording = recorded(ZOO_BASE)
    asked, dropped, wrong = 0, 0, []
    async with cluster_of(recording, tmp_path) as cluster:
        for _, source, target, port, result in flows():

            def met(ask: NodeAsk, probe: SendProbe, source: str = source, result: str = result) -> str:
                if probe.pod == source and probe.protocol == "tcp":
                    return "answered" if result == "connected" else "silence"
                return ""  # nobody sent pings

            diagnosis = judged(await known(cluster, source, f"{target} {port}/tcp", family=4), recording, met)
            asked, dropped = asked + 1, dropped + (result != "connected")
            if diagnosis.verdict != "unknown" or diagnosis.causes:
                wrong.append(told(source, target, diagnosis))
    assert wrong == []
    assert asked > dropped > 10


@pytest.mark.parametrize("node", ["node-b", "node-c"])
async def test_a_recorded_policy_that_names_networks_of_ipv4_alone_has_forgotten_ipv6(
    node: str, tmp_path: Path
) -> None:
    """Its rules of IPv4 were recorded beside those of IPv6, which dropped two pings at the end of tier default."""
    recording = recorded(ZOO_BASE)
    recording.objects.append(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "deny-v6-except-a2", "namespace": "default"},
            "spec": {
                "podSelector": {},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"ipBlock": {"cidr": "10.244.0.0/16"}}]}],
            },
        }
    )
    before, after = (
        ruleset(f"dualstack/policy-v6/{state}/{node}") for state in ("1-v4-cidr-only-idle", "2-v4-cidr-only-probed")
    )
    asked = Trace(source="fd00::1", target="fd00::2", protocol="icmp")
    (drop,) = [one for one in grown(node, [Counted(asked, 2)], before, after) if isinstance(one, RuleDrop)]
    pods = pods_of(recording)
    target = next(one.name for one in pods if drop.chain.endswith(veth_name(*one.name.split("/"))))
    source = next(one.name for one in pods if one.node == "node-a")

    def met(ask: NodeAsk, probe: SendProbe) -> str:
        return "silence" if probe.pod == source and ":" in probe.target else "answered"

    def counted(at: str, packet: Trace) -> list[Fact]:
        of_ipv6 = at == node and ":" in packet.source and not packet.reply
        return list(grown(node, [Counted(packet, 2)], before, after)) if of_ipv6 else []

    async with cluster_of(recording, tmp_path) as cluster:
        diagnosis = await followed(cluster, await known(cluster, source, target), recording, met, counted)
    (cause,) = diagnosis.causes
    assert (cause.rule, cause.node) == ("policy_forgets_address_family", node)
    assert cause.flow.endswith("over IPv6") and "NetworkPolicy default/deny-v6-except-a2 allows the same" in cause.text
