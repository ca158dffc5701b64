"""The published conformance cases of Kubernetes NetworkPolicy, in our own words: each as who reaches whom, pod by pod.

A case that failed would mean that somebody is told a policy drops what it allows, or the other way round.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.policy_world import (
    ADDRESSES,
    LABELS,
    NAMESPACES,
    PODS,
    Object,
    Pod,
    Truth,
    expected,
    labels,
    network_policy,
    reached,
)

INTO, OUT_OF = ["Ingress"], ["Egress"]
XA = Pod("x", "a")


def into_xa(*rules: Object, **spec: Any) -> Object:
    """A policy about what comes to x/a."""
    return network_policy("into-a", podSelector=labels(pod="a"), policyTypes=INTO, ingress=list(rules), **spec)


def out_of_xa(*rules: Object) -> Object:
    return network_policy("out-of-a", podSelector=labels(pod="a"), policyTypes=OUT_OF, egress=list(rules))


def only_to_xa(allowed: Truth) -> Truth:
    """Everybody else is reached by everybody."""
    return lambda source, target, protocol, port: target != XA or allowed(source, target, protocol, port)


def only_from_xa(allowed: Truth) -> Truth:
    return lambda source, target, protocol, port: source != XA or allowed(source, target, protocol, port)


def block(pod: Pod, *excepted: Pod, length: int = 24) -> Object:
    """An ipBlock around a pod's address."""
    written = {"cidr": f"{ADDRESSES[pod][4]}/{length}", "except": [f"{ADDRESSES[one][4]}/32" for one in excepted]}
    return {"ipBlock": written}


ALL, NOBODY = lambda *_: True, lambda *_: False
POD_B = {"podSelector": labels(pod="b")}
NS_Y = {"namespaceSelector": labels(ns="y")}
IN = "In"

CASES: dict[str, tuple[list[Object], Truth]] = {
    "no policy: everybody reaches everybody": ([], ALL),
    "deny all into a namespace": ([network_policy("deny", policyTypes=INTO)], lambda s, t, p, n: t.namespace != "x"),
    "deny all out of a namespace": (
        [network_policy("deny", policyTypes=OUT_OF)],
        lambda s, t, p, n: s.namespace != "x",
    ),
    "deny all both ways": (
        [network_policy("deny", policyTypes=INTO + OUT_OF)],
        lambda s, t, p, n: "x" not in (s.namespace, t.namespace),
    ),
    "what is denied elsewhere concerns nobody here": (
        [network_policy("deny", "y", policyTypes=INTO)],
        lambda s, t, p, n: t.namespace != "y",
    ),
    "a policy without types is about what comes in": ([network_policy("deny")], lambda s, t, p, n: t.namespace != "x"),
    "one empty rule allows all": ([into_xa({})], ALL),
    "one empty rule of egress allows all": ([out_of_xa({})], ALL),
    "no rule allows nothing": ([into_xa()], only_to_xa(NOBODY)),
    "an empty list of peers means all of them": ([into_xa({"from": []})], ALL),
    "from pods by a label, of the policy's own namespace only": (
        [into_xa({"from": [POD_B]})],
        only_to_xa(lambda s, t, p, n: s == Pod("x", "b")),
    ),
    "from all pods of the policy's own namespace": (
        [into_xa({"from": [{"podSelector": {}}]})],
        only_to_xa(lambda s, t, p, n: s.namespace == "x"),
    ),
    "from all namespaces": ([into_xa({"from": [{"namespaceSelector": {}}]})], ALL),
    "from a namespace by its label": ([into_xa({"from": [NS_Y]})], only_to_xa(lambda s, t, p, n: s.namespace == "y")),
    "from a namespace by its name": (
        [into_xa({"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "z"}}}]})],
        only_to_xa(lambda s, t, p, n: s.namespace == "z"),
    ),
    "from namespaces by an expression": (
        [
            into_xa(
                {
                    "from": [
                        {
                            "namespaceSelector": {
                                "matchExpressions": [{"key": "ns", "operator": "NotIn", "values": ["x"]}]
                            }
                        }
                    ]
                }
            )
        ],
        only_to_xa(lambda s, t, p, n: s.namespace != "x"),
    ),
    "from pods by expressions": (
        [
            into_xa(
                {
                    "from": [
                        {
                            "podSelector": {
                                "matchExpressions": [
                                    {"key": "pod", "operator": IN, "values": ["b", "c"]},
                                    {"key": "pod", "operator": "Exists"},
                                    {"key": "old", "operator": "DoesNotExist"},
                                    {"key": "pod", "operator": "NotIn", "values": ["c"]},
                                ]
                            }
                        }
                    ]
                }
            )
        ],
        only_to_xa(lambda s, t, p, n: s == Pod("x", "b")),
    ),
    "namespace and pod in one peer: both must match": (
        [into_xa({"from": [{**NS_Y, **POD_B}]})],
        only_to_xa(lambda s, t, p, n: s == Pod("y", "b")),
    ),
    "namespace and pod in two peers: either may match": (
        [into_xa({"from": [NS_Y, POD_B]})],
        only_to_xa(lambda s, t, p, n: s.namespace == "y" or s == Pod("x", "b")),
    ),
    "several namespaces and pods": (
        [
            into_xa(
                {
                    "from": [
                        {
                            "namespaceSelector": {
                                "matchExpressions": [{"key": "ns", "operator": IN, "values": ["y", "z"]}]
                            },
                            "podSelector": {"matchExpressions": [{"key": "pod", "operator": IN, "values": ["a", "c"]}]},
                        }
                    ]
                }
            )
        ],
        only_to_xa(lambda s, t, p, n: s.namespace in "yz" and s.name in "ac"),
    ),
    "one port": (
        [into_xa({"ports": [{"port": 81, "protocol": "TCP"}]})],
        only_to_xa(lambda s, t, p, n: (p, n) == ("tcp", 81)),
    ),
    "a port without a protocol is TCP": (
        [into_xa({"ports": [{"port": 80}]})],
        only_to_xa(lambda s, t, p, n: (p, n) == ("tcp", 80)),
    ),
    "a protocol without a port": (
        [into_xa({"ports": [{"protocol": "UDP"}]})],
        only_to_xa(lambda s, t, p, n: p == "udp"),
    ),
    "SCTP": (
        [into_xa({"ports": [{"protocol": "SCTP", "port": 80}]})],
        only_to_xa(lambda s, t, p, n: (p, n) == ("sctp", 80)),
    ),
    "several ports of several protocols": (
        [into_xa({"ports": [{"port": 80}, {"port": 81, "protocol": "UDP"}]})],
        only_to_xa(lambda s, t, p, n: (p, n) in (("tcp", 80), ("udp", 81))),
    ),
    "all ports of a protocol beside one of them": (
        [into_xa({"ports": [{"port": 80}, {"protocol": "TCP"}]})],
        only_to_xa(lambda s, t, p, n: p == "tcp"),
    ),
    "a span of ports": (
        [into_xa({"ports": [{"port": 81, "endPort": 90, "protocol": "TCP"}]})],
        only_to_xa(lambda s, t, p, n: (p, n) == ("tcp", 81)),
    ),
    "peers and ports in one rule: both must match": (
        [into_xa({"from": [NS_Y], "ports": [{"port": 80}]})],
        only_to_xa(lambda s, t, p, n: s.namespace == "y" and (p, n) == ("tcp", 80)),
    ),
    "peers and ports in two rules: either may match": (
        [into_xa({"from": [NS_Y]}, {"ports": [{"port": 80}]})],
        only_to_xa(lambda s, t, p, n: s.namespace == "y" or (p, n) == ("tcp", 80)),
    ),
    "a named port": (
        [into_xa({"ports": [{"port": "serve-81-tcp", "protocol": "TCP"}]})],
        only_to_xa(lambda s, t, p, n: (p, n) == ("tcp", 81)),
    ),
    "a name that the pod gives to another protocol": (
        [into_xa({"ports": [{"port": "serve-81-tcp", "protocol": "UDP"}]})],
        only_to_xa(NOBODY),
    ),
    "a named port of egress is what each target calls so": (
        [out_of_xa({"ports": [{"port": "serve-80-tcp", "protocol": "TCP"}]})],
        only_from_xa(lambda s, t, p, n: (p, n) == ("tcp", 81 if t == Pod("x", "c") else 80)),
    ),
    "several policies about one pod are a union": (
        [
            into_xa({"from": [NS_Y], "ports": [{"port": 80}]}),
            network_policy("more", podSelector=labels(pod="a"), ingress=[{"from": [POD_B]}]),
        ],
        only_to_xa(lambda s, t, p, n: s == Pod("x", "b") or (s.namespace == "y" and (p, n) == ("tcp", 80))),
    ),
    "allow all beside deny all": (
        [network_policy("deny", policyTypes=INTO), network_policy("allow", policyTypes=INTO, ingress=[{}])],
        ALL,
    ),
    "out to one namespace": (
        [out_of_xa({"to": [NS_Y]})],
        only_from_xa(lambda s, t, p, n: t.namespace == "y"),
    ),
    "out to pods by a label, of the policy's own namespace only": (
        [out_of_xa({"to": [POD_B]})],
        only_from_xa(lambda s, t, p, n: t == Pod("x", "b")),
    ),
    "out by a port": (
        [out_of_xa({"ports": [{"port": 80, "protocol": "UDP"}]})],
        only_from_xa(lambda s, t, p, n: (p, n) == ("udp", 80)),
    ),
    "several policies of egress are a union": (
        [
            out_of_xa({"to": [NS_Y]}),
            network_policy("more", podSelector=labels(pod="a"), policyTypes=OUT_OF, egress=[{"to": [POD_B]}]),
        ],
        only_from_xa(lambda s, t, p, n: t.namespace == "y" or t == Pod("x", "b")),
    ),
    "both ends must allow": (
        [
            into_xa({"from": [NS_Y]}),
            network_policy("y-out", "y", policyTypes=OUT_OF, egress=[{"ports": [{"port": 80}]}]),
        ],
        lambda s, t, p, n: (t != XA or s.namespace == "y") and (s.namespace != "y" or (p, n) == ("tcp", 80)),
    ),
    "rules of egress are nothing where only Ingress is named": (
        [network_policy("in", policyTypes=INTO, ingress=[{}], egress=[{"to": [POD_B]}])],
        ALL,
    ),
    "ingress and egress in one policy": (
        [
            network_policy(
                "both",
                podSelector=labels(pod="a"),
                policyTypes=INTO + OUT_OF,
                ingress=[{"from": [NS_Y]}],
                egress=[{"to": [POD_B]}],
            )
        ],
        lambda s, t, p, n: (t != XA or s.namespace == "y") and (s != XA or t == Pod("x", "b")),
    ),
    "from a block of addresses": (
        [into_xa({"from": [block(Pod("y", "a"))]})],
        only_to_xa(lambda s, t, p, n: s.namespace == "y"),
    ),
    "from one address": (
        [into_xa({"from": [block(Pod("y", "b"), length=32)]})],
        only_to_xa(lambda s, t, p, n: s == Pod("y", "b")),
    ),
    "from a block but for one address": (
        [into_xa({"from": [block(Pod("y", "a"), Pod("y", "b"))]})],
        only_to_xa(lambda s, t, p, n: s.namespace == "y" and s.name != "b"),
    ),
    "what one block leaves out another may let in": (
        [into_xa({"from": [block(Pod("y", "a"), Pod("y", "b")), block(Pod("y", "b"), length=32)]})],
        only_to_xa(lambda s, t, p, n: s.namespace == "y"),
    ),
    "out to a block but for one address": (
        [out_of_xa({"to": [block(Pod("z", "a"), Pod("z", "c"))]})],
        only_from_xa(lambda s, t, p, n: t.namespace == "z" and t.name != "c"),
    ),
    "a policy about some pods by an expression": (
        [
            network_policy(
                "most",
                podSelector={"matchExpressions": [{"key": "pod", "operator": "NotIn", "values": ["c"]}]},
                policyTypes=INTO,
            )
        ],
        lambda s, t, p, n: t.namespace != "x" or t.name == "c",
    ),
    "a policy about nobody": ([network_policy("nobody", podSelector=labels(pod="q"), policyTypes=INTO + OUT_OF)], ALL),
}


@pytest.mark.parametrize("case", CASES)
def test_who_reaches_whom(case: str) -> None:
    policies, truth = CASES[case]
    assert reached(policies) == expected(truth)


def test_labels_of_a_pod_may_change() -> None:
    """Who gets the label later is let in then, and who loses it no more."""
    policies = [into_xa({"from": [{"podSelector": labels(role="client")}]})]
    changed = {**LABELS, Pod("x", "c"): {"pod": "c", "role": "client"}}
    assert reached(policies) == expected(only_to_xa(NOBODY))
    assert reached(policies, pods=changed) == expected(only_to_xa(lambda s, t, p, n: s == Pod("x", "c")))


def test_labels_of_a_namespace_may_change() -> None:
    policies = [into_xa({"from": [{"namespaceSelector": labels(trusted="yes")}]})]
    changed = {**NAMESPACES, "z": {"trusted": "yes"}}
    assert reached(policies) == expected(only_to_xa(NOBODY))
    assert reached(policies, namespaces=changed) == expected(only_to_xa(lambda s, t, p, n: s.namespace == "z"))


def test_a_block_of_one_family_lets_nobody_in_by_the_other() -> None:
    """The commonest reason why a dual stack pod answers over one family only."""
    policies = [into_xa({"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]})]
    assert reached(policies) == expected(ALL)
    assert reached(policies, family=6) == expected(only_to_xa(NOBODY))
    both = [into_xa({"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}, {"ipBlock": {"cidr": "fd00::/16"}}]})]
    assert reached(both, family=6) == expected(ALL)


def test_there_are_nine_pods() -> None:
    assert len(PODS) == len({address[4] for address in ADDRESSES.values()}) == 9
