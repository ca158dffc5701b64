"""Policies made at random, judged a second time by the plainest possible reading of what they mean.

The oracles know nothing of how Calico translates or orders: one reads Kubernetes' own words, one plays packet marks
through every rule as a kernel would.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine import policy
from engine.policy import Ends, Packet, Rules
from facts import LabelledEndpoint, Policy, Tier, policy_kinds
from tests.policy_world import ADDRESSES, LABELS, NAMESPACES, PODS, Pod, between, calico_policy, end, endpoint

Object = Mapping[str, Any]
ENDPOINTS = {pod: endpoint(pod) for pod in PODS}
PORTS = (79, 80, 81, 82)
PROTOCOLS = ("tcp", "udp", "sctp", "icmp")

# -- Kubernetes NetworkPolicies ---------------------------------------------------------------------------------------

_values = st.lists(st.sampled_from("abcxyz"), max_size=3)
_expressions = st.builds(
    lambda key, operator, values: {"key": key, "operator": operator, "values": values},
    st.sampled_from(["pod", "ns", "old"]),
    st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]),
    _values,
)
_selectors = st.fixed_dictionaries(
    {},
    optional={
        "matchLabels": st.dictionaries(st.sampled_from(["pod", "ns"]), st.sampled_from("abxy"), max_size=1),
        "matchExpressions": st.lists(_expressions, max_size=2),
    },
)
_blocks = st.sampled_from(
    [
        ("10.0.0.0/16", []),
        ("10.0.0.0/16", ["10.0.1.1/32", "10.0.2.0/25"]),
        ("10.0.1.0/24", ["10.0.1.1/32"]),
        ("10.0.2.2/32", []),
        ("0.0.0.0/0", ["10.0.2.0/25"]),
        ("fd00::/16", []),
        ("fd00::/16", ["fd00::1:0/112"]),
    ]
)
_peers = st.one_of(
    st.fixed_dictionaries({"podSelector": _selectors}),
    st.fixed_dictionaries({"namespaceSelector": _selectors}),
    st.fixed_dictionaries({"namespaceSelector": _selectors, "podSelector": _selectors}),
    _blocks.map(lambda block: {"ipBlock": {"cidr": block[0], "except": block[1]}}),
)
_ports = st.one_of(
    st.fixed_dictionaries({}, optional={"protocol": st.sampled_from(["TCP", "UDP", "SCTP"])}),
    st.fixed_dictionaries(
        {"port": st.sampled_from([80, 81, "serve-80-tcp", "serve-81-udp"])},
        optional={"protocol": st.sampled_from(["TCP", "UDP"])},
    ),
    st.just({"port": 79, "endPort": 81, "protocol": "TCP"}),
)


def _rules(side: str) -> st.SearchStrategy[list[Object]]:
    fields = {side: st.lists(_peers, max_size=2), "ports": st.lists(_ports, max_size=2)}
    return st.lists(st.fixed_dictionaries({}, optional=fields), max_size=2)


_network_policies = st.builds(
    lambda at, namespace, selector, types, ingress, egress: {
        "metadata": {"name": f"p{at}", "namespace": namespace},
        "spec": {"podSelector": selector, "policyTypes": types, "ingress": ingress, "egress": egress},
    },
    st.integers(0, 99),
    st.sampled_from("xy"),
    _selectors,
    st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
    _rules("from"),
    _rules("to"),
)


def selects(selector: Object, labels: Object) -> bool:
    """As the Kubernetes documentation has it."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for one in selector.get("matchExpressions") or ():
        has = one["key"] in labels
        among = has and labels[one["key"]] in one["values"]
        if not {"In": among, "NotIn": not among, "Exists": has, "DoesNotExist": not has}[one["operator"]]:
            return False
    return True


def is_peer(peer: Object, namespace: str, pod: Pod, family: int) -> bool:
    if "ipBlock" in peer:
        address = ipaddress.ip_address(ADDRESSES[pod][family])
        block = peer["ipBlock"]
        left_out = any(address in ipaddress.ip_network(one) for one in block["except"])
        return address in ipaddress.ip_network(block["cidr"]) and not left_out
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], NAMESPACES[pod.namespace]):
            return False
    elif pod.namespace != namespace:
        return False
    return selects(peer.get("podSelector") or {}, LABELS[pod])


def is_port(written: Object, target: Pod, protocol: str, port: int) -> bool:
    if written.get("protocol", "TCP").lower() != protocol:
        return False
    wanted = written.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, str):
        return (wanted, protocol, port) in ENDPOINTS[target].ports
    return wanted <= port <= written.get("endPort", wanted)


def allowed_at(policies: list[Object], source: Pod, target: Pod, direction: str, packet: Packet, family: int) -> bool:
    own, other = (source, target) if direction == "Egress" else (target, source)
    field, side = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    mine = [
        one
        for one in policies
        if one["metadata"]["namespace"] == own.namespace
        and selects(one["spec"]["podSelector"], LABELS[own])
        and direction in one["spec"]["policyTypes"]
    ]
    return not mine or any(
        (not rule.get(side) or any(is_peer(peer, own.namespace, other, family) for peer in rule[side]))
        and (not rule.get("ports") or any(is_port(one, target, packet.protocol, packet.port) for one in rule["ports"]))
        for one in mine
        for rule in one["spec"][field]
    )


_packets = st.builds(Packet, st.sampled_from(PROTOCOLS), st.sampled_from(PORTS))


@settings(max_examples=400, deadline=None)
@given(
    st.lists(_network_policies, max_size=4), st.sampled_from(PODS), st.sampled_from(PODS), _packets,
    st.sampled_from([4, 6]),
)  # fmt: skip
def test_kubernetes_policies_mean_what_kubernetes_says(
    policies: list[Object], source: Pod, target: Pod, packet: Packet, family: int
) -> None:
    known = tuple(one for manifest in policies if (one := policy_kinds.kubernetes(manifest)) is not None)
    out, into = between(Rules(known), ENDPOINTS[source], ENDPOINTS[target], packet, family=family)
    assert (out.verdict == "allow") == allowed_at(policies, source, target, "Egress", packet, family)
    assert (into.verdict == "allow") == allowed_at(policies, source, target, "Ingress", packet, family)


# -- Calico's policies in tiers ---------------------------------------------------------------------------------------

TIERS = (
    Tier(name="first", order="1"),
    Tier(name="second", order="2", default_action="Pass"),
    Tier(name="default", order="1000000"),
)
_WORDS = {
    "selector": st.sampled_from(["pod == 'a'", "pod in {'b', 'c'}", "all()", "has(old)"]),
    "notSelector": st.sampled_from(["pod == 'a'", "has(old)"]),
    "namespaceSelector": st.sampled_from(["ns == 'x'", "ns != 'x'", "all()", "global()"]),
    "nets": st.lists(st.sampled_from(["10.0.1.0/24", "10.0.2.2/32", "fd00::1:0/112"]), min_size=1, max_size=2),
    "notNets": st.lists(st.sampled_from(["10.0.1.0/24", "fd00::1:0/112"]), min_size=1, max_size=2),
}
_PORT_WORDS = {
    "ports": st.lists(st.sampled_from([80, "80:82", "serve-80-tcp"]), min_size=1, max_size=2),
    "notPorts": st.lists(st.sampled_from([81, "serve-80-tcp"]), min_size=1, max_size=1),
}
_RULE_WORDS = {
    "protocol": st.sampled_from(["TCP", "UDP"]),
    "notProtocol": st.sampled_from(["TCP", "ICMP"]),
    "ipVersion": st.sampled_from([4, 6]),
}


def _few(words: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Object]:
    """One or two of these: a rule that asks for everything matches nobody."""
    return st.lists(st.sampled_from(sorted(words)), max_size=2, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({one: words[one] for one in chosen})
    )


_calico_rules = st.builds(
    lambda action, source, destination, rest: {
        "action": action, "source": source, "destination": destination, **rest
    },
    st.sampled_from(["Allow", "Allow", "Deny", "Deny", "Pass", "Log"]),
    _few(_WORDS),
    st.one_of(st.just({}), _few({**_WORDS, **_PORT_WORDS})),
    st.one_of(st.just({}), st.just({}), _few(_RULE_WORDS)),
)  # fmt: skip
_calico_policies = st.builds(
    lambda at, namespace, tier, order, types, rules, selector: calico_policy(
        f"p{at}", namespace, tier=tier, order=order, types=types, ingress=rules, egress=rules, selector=selector
    ),
    st.integers(0, 99),
    st.sampled_from(["", "x"]),
    st.sampled_from(["first", "second", "default"]),
    st.sampled_from([None, 1, 2.5, 10]),
    st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"], []]),
    st.lists(_calico_rules, max_size=3),
    st.sampled_from(["", "pod == 'a'", "pod != 'a'"]),
)
MEANING = {
    "": lambda pod: True,
    "all()": lambda pod: True,
    "has(old)": lambda pod: False,
    "pod == 'a'": lambda pod: pod.name == "a",
    "pod != 'a'": lambda pod: pod.name != "a",
    "pod in {'b', 'c'}": lambda pod: pod.name in "bc",
}
OF_NAMESPACES = {
    "ns == 'x'": lambda pod: pod.namespace == "x",
    "ns != 'x'": lambda pod: pod.namespace != "x",
    "all()": lambda pod: True,
    "global()": lambda pod: False,
}


def inside(nets: tuple[str, ...], pod: Pod, family: int) -> bool:
    return any(ipaddress.ip_address(ADDRESSES[pod][family]) in ipaddress.ip_network(one) for one in nets)


def marks(one: Policy, rule: Any, source: Pod, target: Pod, packet: Packet, family: int) -> bool:
    """Every match of the rule, one after the other, as a kernel would go through them."""
    if rule.ip_version and rule.ip_version != family:
        return False
    numbers = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1 if family == 4 else 58}
    if rule.protocol and {"tcp": 6, "udp": 17}[rule.protocol] != numbers[packet.protocol]:
        return False
    if rule.not_protocol and {"tcp": 6, "icmp": 1}[rule.not_protocol] == numbers[packet.protocol]:
        return False
    for peer, pod in ((rule.source, source), (rule.destination, target)):
        for nets, wanted in ((peer.nets, True), (peer.not_nets, False)):
            of_family = tuple(net for net in nets if (":" in net) == (family == 6))
            if nets and not of_family:
                return False
            if nets and inside(of_family, pod, family) != wanted:
                return False
        if peer.selector and not MEANING[peer.selector](pod):
            return False
        if peer.not_selector and MEANING[peer.not_selector](pod):
            return False
        if peer.namespace_selector:
            if not OF_NAMESPACES[peer.namespace_selector](pod):
                return False
        elif (peer.selector or peer.not_selector) and one.namespace and pod.namespace != one.namespace:
            return False
    for written, wanted in ((rule.destination.ports, True), (rule.destination.not_ports, False)):
        if not written:
            continue
        known = {"80": [80], "81": [81], "80:82": [80, 81, 82]}
        named = [port for name, protocol, port in ENDPOINTS[target].ports if protocol == packet.protocol
                 and name in written]  # fmt: skip
        numbers_meant = [number for word in written for number in known.get(word, [])] + named
        hit = packet.protocol != "icmp" and packet.port in numbers_meant
        if hit != wanted:
            return False
    return True


def played(policies: list[Policy], source: Pod, target: Pod, direction: str, packet: Packet, family: int) -> str:
    """Tier by tier with an accept and a pass mark."""
    own = source if direction == "Egress" else target
    for tier in ("first", "second", "default"):
        mine = [
            one
            for one in policies
            if one.tier == tier
            and MEANING[one.selector](own)
            and one.namespace in ("", own.namespace)
            and (not one.types or direction in one.types)
        ]
        mine.sort(key=lambda one: (float(one.order or "inf"), f"{one.name}/{one.namespace}/{one.kind}"))
        passed = False
        for one in mine:
            for rule in one.egress if direction == "Egress" else one.ingress:
                if passed or rule.action == "Log" or not marks(one, rule, source, target, packet, family):
                    continue
                if rule.action in ("Allow", "Deny"):
                    return rule.action.lower()
                passed = True
        if mine and not passed and tier != "second":
            return "deny"
    return "allow"


@settings(max_examples=600, deadline=None)
@given(
    st.lists(_calico_policies, max_size=4, unique_by=lambda one: one.name), st.sampled_from(PODS),
    st.sampled_from(PODS), _packets, st.sampled_from([4, 6]),
)  # fmt: skip
def test_calico_policies_mean_what_packet_marks_make_of_them(
    policies: list[Policy], source: Pod, target: Pod, packet: Packet, family: int
) -> None:
    rules = Rules(tuple(policies), TIERS)
    out, into = between(rules, ENDPOINTS[source], ENDPOINTS[target], packet, family=family)
    assert out.verdict == played(policies, source, target, "Egress", packet, family)
    assert into.verdict == played(policies, source, target, "Ingress", packet, family)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(_calico_policies, max_size=3, unique_by=lambda one: one.name), st.sampled_from(PODS),
    st.sampled_from(PODS), _packets,
)  # fmt: skip
def test_the_list_of_what_passes_says_the_same_of_every_port(
    policies: list[Policy], source: Pod, target: Pod, packet: Packet
) -> None:
    rules, ends = Rules(tuple(policies), TIERS), Ends(end(ENDPOINTS[source]), end(ENDPOINTS[target]), 4)
    gates = [
        policy.gate(rules, one, direction, ends)
        for one, direction in ((ENDPOINTS[source], "egress"), (ENDPOINTS[target], "ingress"))
    ]
    allowed, doubtful = policy.allowed(gates)
    said = policy.together(policy.decide(gate, packet) for gate in gates)
    assert not doubtful
    assert listed(allowed, packet) == (said == "allow")


def listed(allowed: tuple[str, ...], packet: Packet) -> bool:
    if packet.protocol in allowed:
        return True
    spans = [one.partition("/")[0].split("-") for one in allowed if one.endswith(f"/{packet.protocol}")]
    return any(int(span[0]) <= packet.port <= int(span[-1]) for span in spans)


def test_the_oracle_knows_all_pods() -> None:
    assert all(isinstance(one, LabelledEndpoint) for one in ENDPOINTS.values())
    assert len(ENDPOINTS) == 9
