"""API objects of the lab, said as the policies Felix programs; without it `kubectl apply` of one would do nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from facts import Policy, PolicyPeer, PolicyRule, policy_kinds
from facts.stored import metadata
from lab.firewall.policies import Policies, readable

Object = Mapping[str, Any]
Listed = Callable[[str], Iterable[Object]]

log = logging.getLogger("felix")

KUBERNETES_POLICIES = "networkpolicies.networking.k8s.io"
CALICO_POLICIES = ("networkpolicies", "globalnetworkpolicies")
STAGED = ("stagednetworkpolicies", "stagedglobalnetworkpolicies")
STAGED_KUBERNETES = "stagedkubernetesnetworkpolicies"
CLUSTER_POLICIES = "clusternetworkpolicies"
NETWORK_SETS = ("globalnetworksets", "networksets")
READS = (
    *CALICO_POLICIES, *STAGED, STAGED_KUBERNETES, CLUSTER_POLICIES, *NETWORK_SETS, "tiers", "hostendpoints",
    "namespaces", "serviceaccounts", "endpointslices",
)  # fmt: skip


def policies(list_of: Listed, group: str) -> Policies:
    """`list_of("pods")` gives the plain objects of a resource, `list_of("networkpolicies.GROUP")` those of that group.

    group: of Calico's objects. Nothing more is read where nothing needs it.
    """
    told = tuple(_policies(list_of, group))
    hosts = list(list_of("hostendpoints"))
    if not told and not hosts:
        return Policies()
    namespaces = {one["metadata"]["name"]: one for one in list_of("namespaces")}
    accounts = {(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in list_of("serviceaccounts")}
    felix = {one["metadata"]["name"]: one.get("spec") or {} for one in list_of("felixconfigurations")}
    pods = [
        policy_kinds.pod_endpoint(
            pod,
            namespaces.get(pod["metadata"]["namespace"]),
            accounts.get((pod["metadata"]["namespace"], pod["spec"].get("serviceAccountName") or "")),
        )
        for pod in list_of("pods")
        if not pod["spec"].get("hostNetwork")
    ]
    return Policies(
        tiers=tuple(policy_kinds.tier(one) for one in list_of("tiers")),
        policies=tuple(_with_services(one, list_of) for one in told),
        endpoints=(*pods, *(policy_kinds.host_endpoint(one, _settings(felix, one)) for one in hosts)),
        network_sets=tuple(
            policy_kinds.network_set(one, namespaces.get(metadata(one).get("namespace") or ""))
            for kind in NETWORK_SETS
            for one in list_of(kind)
        ),
    )


def _settings(felix: Mapping[str, Object], host: Object) -> Object:
    return {**felix.get("default", {}), **felix.get(f"node.{host['spec'].get('node')}", {})}


def _policies(list_of: Listed, group: str) -> Iterator[Policy]:
    yield from _told(list_of(KUBERNETES_POLICIES), policy_kinds.kubernetes)
    yield from _told(list_of(CLUSTER_POLICIES), lambda one, staged: policy_kinds.cluster_wide(one))
    for kind in CALICO_POLICIES:
        yield from _told(list_of(f"{kind}.{group}"), policy_kinds.calico)
    for kind in STAGED:
        yield from _told(list_of(kind), policy_kinds.calico, staged=True)
    yield from _told(list_of(STAGED_KUBERNETES), policy_kinds.kubernetes, staged=True)


def _told(
    listed: Iterable[Object], translate: Callable[..., Policy | None], *, staged: bool = False
) -> Iterator[Policy]:
    for one in listed:
        try:
            told = translate(one, staged=staged)
        except (KeyError, TypeError, ValueError) as error:
            log.warning("Felix cannot read the %s %s: %r", one["kind"], one["metadata"]["name"], error)
            continue
        if told is not None and not readable(told):
            log.warning("Felix cannot read the %s %s", one["kind"], one["metadata"]["name"])
        elif told is not None:
            yield told


def _with_services(policy: Policy, list_of: Listed) -> Policy:
    """The same, with the endpoints of the Services its rules name."""

    def filled(peer: PolicyPeer) -> PolicyPeer:
        if not peer.service:
            return peer
        return msgspec.structs.replace(peer, service_endpoints=tuple(_behind(peer.service, list_of("endpointslices"))))

    def rule(one: PolicyRule) -> PolicyRule:
        return msgspec.structs.replace(one, source=filled(one.source), destination=filled(one.destination))

    return msgspec.structs.replace(
        policy, ingress=tuple(map(rule, policy.ingress)), egress=tuple(map(rule, policy.egress))
    )


def _behind(service: str, slices: Iterable[Object]) -> Iterator[str]:
    """ "10.244.0.5 5432/tcp" of each endpoint and port."""
    namespace, _, name = service.partition("/")
    for one in slices:
        meta = one["metadata"]
        if (meta["namespace"], (meta.get("labels") or {}).get("kubernetes.io/service-name")) != (namespace, name):
            continue
        for address in (to for end in one.get("endpoints") or () for to in end.get("addresses") or ()):
            for port in one.get("ports") or ():
                yield f"{address} {port.get('port')}/{str(port.get('protocol') or 'TCP').lower()}"
