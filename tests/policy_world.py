"""Three namespaces of three pods each, as the published NetworkPolicy tests have them; and who reaches whom there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from engine import policy
from engine.policy import End, Ends, Opinion, Packet, Rules
from facts import LabelledEndpoint, NetworkSet, Policy, policy_kinds

Object = Mapping[str, Any]
PORTS = (80, 81)
PROTOCOLS = ("tcp", "udp", "sctp")


class Pod(NamedTuple):
    """One of the nine."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


PODS = [Pod(namespace, name) for namespace in "xyz" for name in "abc"]
ADDRESSES = {pod: {4: f"10.0.{1 + at // 3}.{1 + at % 3}", 6: f"fd00::{1 + at // 3}:{1 + at % 3}"}
             for at, pod in enumerate(PODS)}  # fmt: skip
NAMESPACES = {one: {"ns": one, "kubernetes.io/metadata.name": one} for one in "xyz"}
LABELS = {pod: {"pod": pod.name} for pod in PODS}
# Every pod serves the same ports; the name "serve-80-tcp" is the port's only where the pod is not x/c.
NAMED = tuple((f"serve-{port}-{protocol}", protocol, port) for port in PORTS for protocol in PROTOCOLS)

Truth = Callable[[Pod, Pod, str, int], bool]


def network_policy(name: str, namespace: str = "x", **spec: Any) -> Object:
    """A Kubernetes NetworkPolicy."""
    kept = {"podSelector": {}, **spec}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": kept}


def labels(**written: str) -> Object:
    """A Kubernetes selector by these labels."""
    return {"matchLabels": written}


def endpoint(pod: Pod, *, pods: Mapping[Pod, Object] = LABELS, namespaces: Mapping[str, Object] = NAMESPACES,
             account: Object | None = None) -> LabelledEndpoint:  # fmt: skip
    """The pod, as its objects in the API are read."""
    ports = [{"name": name, "protocol": protocol.upper(), "containerPort": port} for name, protocol, port in NAMED]
    if pod == Pod("x", "c"):
        ports[0]["containerPort"] = 81
    written = {
        "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": pods[pod]},
        "spec": {
            "nodeName": "node",
            "containers": [{"ports": ports}],
            "serviceAccountName": (account or {"metadata": {"name": "default"}})["metadata"]["name"],
        },
        "status": {"podIPs": [{"ip": address} for address in ADDRESSES[pod].values()]},
    }
    namespace = {"metadata": {"name": pod.namespace, "labels": namespaces[pod.namespace]}}
    return policy_kinds.pod_endpoint(written, namespace, account)


def end(one: LabelledEndpoint, family: int = 4, sets: Iterable[NetworkSet] = ()) -> End:
    """That pod as one end of a packet."""
    (address,) = [address for address in one.addresses if (":" in address) == (family == 6)]
    return End(address, (one,), tuple(each for each in sets if policy.contains(each, address)))


def between(rules: Rules, source: LabelledEndpoint, target: LabelledEndpoint, packet: Packet, *, family: int = 4,
            sets: Sequence[NetworkSet] = ()) -> tuple[Opinion, Opinion]:  # fmt: skip
    """What is said at either end."""
    ends = Ends(end(source, family, sets), end(target, family, sets), family)
    out = policy.gate(rules, source, "egress", ends)
    into = policy.gate(rules, target, "ingress", ends)
    return policy.decide(out, packet), policy.decide(into, packet)


def reached(policies: Iterable[Object], **world: Any) -> dict[tuple[Pod, Pod, str, int], bool]:
    """Who reaches whom by which port under these Kubernetes NetworkPolicies."""
    known = [one for manifest in policies if (one := policy_kinds.kubernetes(manifest)) is not None]
    family = world.pop("family", 4)
    ends = {pod: endpoint(pod, **world) for pod in PODS}
    return {
        (source, target, protocol, port): policy.together(
            between(Rules(tuple(known)), ends[source], ends[target], Packet(protocol, port), family=family)
        )
        == "allow"
        for source, target in itertools.permutations(PODS, 2)
        for protocol in PROTOCOLS
        for port in PORTS
    }


def expected(truth: Truth) -> dict[tuple[Pod, Pod, str, int], bool]:
    """The same as it should be."""
    return {
        (source, target, protocol, port): truth(source, target, protocol, port)
        for source, target in itertools.permutations(PODS, 2)
        for protocol in PROTOCOLS
        for port in PORTS
    }


def calico_policy(name: str, namespace: str = "", **spec: Any) -> Policy:
    """One of Calico's own kinds, as its object in the API is read."""
    written = policy_kinds.calico({"metadata": {"name": name, "namespace": namespace}, "spec": spec})
    assert written is not None
    return written
