"""Policies of every kind as they are stored, said in Calico's model; pure, so that every oddity has a test.

The translation is Felix's own (libcalico-go), its rules numbered as Felix numbers them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from facts.policy import LabelledEndpoint, NetworkSet, Policy, PolicyPeer, PolicyRule, Tier
from facts.stored import addresses, metadata, pod_name

Object = Mapping[str, Any]
Labels = tuple[tuple[str, str], ...]

KUBERNETES_ORDER = "1000"  # of every Kubernetes NetworkPolicy, in tier default
OF_KUBERNETES = "projectcalico.org/orchestrator == 'k8s'"  # so that no host is selected
CLUSTER_TIERS = {"Admin": "kube-admin", "Baseline": "kube-baseline"}
CLUSTER_ACTIONS = {"Accept": "Allow", "Deny": "Deny", "Pass": "Pass"}
FAILSAFE_IN = ("22/tcp", "68/udp", "179/tcp", "2379/tcp", "2380/tcp", "5473/tcp", "6443/tcp", "6666/tcp", "6667/tcp")
FAILSAFE_OUT = ("53/udp", "67/udp", *FAILSAFE_IN[2:])


# -- Kubernetes' own --------------------------------------------------------------------------------------------------


def kubernetes(resource: Object, *, staged: bool = False) -> Policy | None:
    """A NetworkPolicy, or a StagedKubernetesNetworkPolicy; None for a staged one that is to be ignored."""
    meta, spec = metadata(resource), _spec(resource)
    if spec.get("stagedAction") == "Ignore":
        return None
    types = tuple(one for one in ("Ingress", "Egress") if one in (spec.get("policyTypes") or ()))
    return Policy(
        kind="KubernetesNetworkPolicy",
        name=str(meta["name"]),
        namespace=str(meta["namespace"]),
        order=KUBERNETES_ORDER,
        staged=staged,
        removes=staged and spec.get("stagedAction") == "Delete",
        selector=_pods(spec.get("podSelector")),
        types=types or ("Ingress",),
        ingress=tuple(one for rule in spec.get("ingress") or () for one in _kubernetes_rules(rule, "from")),
        egress=tuple(one for rule in spec.get("egress") or () for one in _kubernetes_rules(rule, "to")),
    )


def _kubernetes_rules(rule: Object, side: str) -> list[PolicyRule]:
    """One rule for each protocol and peer. No port means every protocol, a port without a number every port of one."""
    protocols: dict[str, list[str] | None] = {}
    for one in rule.get("ports") or ():
        protocol = str(one.get("protocol") or "TCP")
        port = one.get("port")
        if port is None:
            protocols[protocol] = None
            continue
        written = f"{port}:{one['endPort']}" if one.get("endPort") else str(port)
        known = protocols.setdefault(protocol, [])
        if known is not None:
            known.append(written)
    return [
        _rule("Allow", protocol, ports or (), _kubernetes_peer(peer), side)
        for protocol, ports in (sorted(protocols.items()) or [("", None)])
        for peer in (rule.get(side) or [None])
    ]


def _kubernetes_peer(peer: Object | None) -> PolicyPeer:
    if peer is None:
        return PolicyPeer()
    block: Object | None = peer.get("ipBlock")
    if block is not None:
        return PolicyPeer(nets=(str(block["cidr"]),), not_nets=tuple(block.get("except") or ()))
    return PolicyPeer(
        selector=_pods(peer.get("podSelector")), namespace_selector=_namespaces(peer.get("namespaceSelector"))
    )


def _rule(
    action: str, protocol: str, ports: Sequence[str], peer: PolicyPeer, side: str, *, name: str = ""
) -> PolicyRule:
    """side: "from" for a rule about who comes, "to" for one about who is gone to."""
    if side == "from":
        source, destination = peer, PolicyPeer(ports=tuple(ports))
    else:
        source, destination = PolicyPeer(), msgspec.structs.replace(peer, ports=tuple(ports))
    return PolicyRule(action=action, name=name, protocol=protocol.lower(), source=source, destination=destination)


def _pods(written: Object | None) -> str:
    return " && ".join((OF_KUBERNETES, *_terms(written)))


def _namespaces(written: Object | None) -> str:
    """ "" where none is given: the policy's own namespace is meant then."""
    if written is None:
        return ""
    return " && ".join(_terms(written)) or "all()"


def _terms(written: Object | None) -> list[str]:
    found = [f"{key} == '{value}'" for key, value in sorted(((written or {}).get("matchLabels") or {}).items())]
    for one in (written or {}).get("matchExpressions") or ():
        key, values = one["key"], ", ".join(f"'{value}'" for value in one.get("values") or ())
        found.append(
            {
                "In": f"{key} in {{{values}}}",
                "NotIn": f"{key} not in {{{values}}}",
                "Exists": f"has({key})",
                "DoesNotExist": f"!has({key})",
            }[one["operator"]]
        )
    return found


# -- policies of the whole cluster ------------------------------------------------------------------------------------


def cluster_wide(resource: Object) -> Policy:
    """A ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2)."""
    spec = _spec(resource)
    ingress = tuple(one for rule in spec.get("ingress") or () for one in _cluster_rules(rule, "from"))
    egress = tuple(one for rule in spec.get("egress") or () for one in _cluster_rules(rule, "to"))
    subject: Object = spec.get("subject") or {}
    pods: Object = subject.get("pods") or {}
    by_namespace = subject.get("namespaces") is not None
    return Policy(
        kind="KubernetesClusterNetworkPolicy",
        name=str(metadata(resource)["name"]),
        tier=CLUSTER_TIERS.get(str(spec.get("tier")), ""),
        order=str(spec.get("priority", "")),
        selector=_pods(None if by_namespace else pods.get("podSelector")),
        namespace_selector=_namespaces(subject["namespaces"] if by_namespace else pods.get("namespaceSelector") or {}),
        types=tuple(one for one, rules in (("Ingress", ingress), ("Egress", egress)) if rules),
        ingress=ingress,
        egress=egress,
    )


def _cluster_rules(rule: Object, side: str) -> list[PolicyRule]:
    """What Felix does not support it replaces: a rule that allows by nothing, any other by one that denies all."""
    action, name = CLUSTER_ACTIONS.get(str(rule.get("action"))), str(rule.get("name") or "")
    if action is None:
        return []
    try:
        protocols = _cluster_protocols(rule.get("protocols") or ())
        peers = [_cluster_peer(one, side) for one in rule.get(side) or ()]
    except ValueError:
        return [] if action == "Allow" else [PolicyRule(action="Deny")]
    return [
        _rule(action, protocol, ports or (), peer, side, name=name)
        for protocol, ports in sorted(protocols.items())
        for peer in peers
    ]


def _cluster_protocols(written: Iterable[Object]) -> dict[str, list[str] | None]:
    """Protocol -> its ports, None for all of them; {"": None} where none is named."""
    found: dict[str, list[str] | None] = {}
    for one in written:
        if one.get("destinationNamedPort"):
            raise ValueError("Felix knows no named ports here")
        protocol = next((each for each in ("tcp", "udp", "sctp") if one.get(each) is not None), "")
        if not protocol:
            return {"": None}
        port: Object | None = one[protocol].get("destinationPort")
        span: Object = (port or {}).get("range") or {}
        number = (port or {}).get("number")
        if not number and not span:
            found[protocol] = None
            continue
        known = found.setdefault(protocol, [])
        if known is not None:
            known.append(str(number) if number else f"{span['start']}:{span['end']}")
    return found or {"": None}


def _cluster_peer(peer: Object, side: str) -> PolicyPeer:
    if peer.get("namespaces") is not None:
        return PolicyPeer(namespace_selector=_namespaces(peer["namespaces"]))
    if peer.get("pods") is not None:
        pods: Object = peer["pods"]
        return PolicyPeer(
            selector=_pods(pods.get("podSelector")), namespace_selector=_namespaces(pods.get("namespaceSelector") or {})
        )
    if side == "to" and peer.get("networks"):
        return PolicyPeer(nets=tuple(peer["networks"]))
    raise ValueError("Felix knows no such peer")


# -- Calico's own -----------------------------------------------------------------------------------------------------


def calico(resource: Object, *, staged: bool = False) -> Policy | None:
    """A NetworkPolicy or GlobalNetworkPolicy of Calico, or a staged one; None for one that is to be ignored."""
    meta, spec = metadata(resource), _spec(resource)
    if spec.get("stagedAction") == "Ignore":
        return None
    namespace, tier = str(meta.get("namespace") or ""), str(spec.get("tier") or "default")
    order = spec.get("order")
    return Policy(
        kind="NetworkPolicy" if namespace else "GlobalNetworkPolicy",
        name=_name(resource, tier),
        namespace=namespace,
        tier=tier,
        order="" if order is None else str(order),
        staged=staged,
        removes=staged and spec.get("stagedAction") == "Delete",
        selector=str(spec.get("selector") or ""),
        namespace_selector=str(spec.get("namespaceSelector") or ""),
        service_account_selector=str(spec.get("serviceAccountSelector") or ""),
        types=tuple(spec.get("types") or ()),
        ingress=tuple(_calico_rule(one, namespace) for one in spec.get("ingress") or ()),
        egress=tuple(_calico_rule(one, namespace) for one in spec.get("egress") or ()),
        apply_on_forward=bool(spec.get("applyOnForward") or spec.get("doNotTrack") or spec.get("preDNAT")),
        pre_dnat=bool(spec.get("preDNAT")),
        do_not_track=bool(spec.get("doNotTrack")),
    )


def _name(resource: Object, tier: str) -> str:
    """Before 3.32 what is stored begins with "default." though nobody wrote that; later the name as written is kept
    beside it."""
    stored, written = str(resource["metadata"]["name"]), str(metadata(resource)["name"])
    return written.removeprefix("default.") if tier == "default" and stored == written else written


def _calico_rule(rule: Object, namespace: str) -> PolicyRule:
    icmp: Object = rule.get("icmp") or {}
    not_icmp: Object = rule.get("notICMP") or {}
    return PolicyRule(
        action=str(rule["action"]),
        ip_version=int(rule.get("ipVersion") or 0),
        protocol=_text(rule.get("protocol")).lower(),
        not_protocol=_text(rule.get("notProtocol")).lower(),
        icmp_type=_number(icmp.get("type")),
        icmp_code=_number(icmp.get("code")),
        not_icmp_type=_number(not_icmp.get("type")),
        not_icmp_code=_number(not_icmp.get("code")),
        source=_calico_peer(rule.get("source") or {}, namespace),
        destination=_calico_peer(rule.get("destination") or {}, namespace),
    )


def _calico_peer(peer: Object, namespace: str) -> PolicyPeer:
    accounts: Object = peer.get("serviceAccounts") or {}
    service: Object | None = peer.get("services")
    return PolicyPeer(
        nets=tuple(peer.get("nets") or ()),
        not_nets=tuple(peer.get("notNets") or ()),
        selector=str(peer.get("selector") or ""),
        not_selector=str(peer.get("notSelector") or ""),
        namespace_selector=str(peer.get("namespaceSelector") or ""),
        service_account_names=tuple(accounts.get("names") or ()),
        service_account_selector=str(accounts.get("selector") or ""),
        ports=tuple(map(str, peer.get("ports") or ())),
        not_ports=tuple(map(str, peer.get("notPorts") or ())),
        service=f"{service.get('namespace') or namespace}/{service['name']}" if service else "",
        service_read=not peer.get("domains"),
    )


def tier(resource: Object) -> Tier:
    spec = _spec(resource)
    order = spec.get("order")
    return Tier(
        name=str(metadata(resource)["name"]),
        order="" if order is None else str(order),
        default_action=str(spec.get("defaultAction") or "Deny"),
    )


def network_set(resource: Object, namespace: Object | None = None) -> NetworkSet:
    """A GlobalNetworkSet, or a NetworkSet with its Namespace where that is known."""
    meta = metadata(resource)
    return NetworkSet(
        name=str(meta["name"]),
        namespace=str(meta.get("namespace") or ""),
        labels=_pairs({**(meta.get("labels") or {}), **_namespace_label(meta)}),
        namespace_labels=with_name(namespace),
        nets=tuple(_spec(resource).get("nets") or ()),
    )


# -- who is selected --------------------------------------------------------------------------------------------------


def pod_endpoint(pod: Object, namespace: Object | None, account: Object | None) -> LabelledEndpoint:
    meta, spec = pod["metadata"], _spec(pod)
    service_account = str(spec.get("serviceAccountName") or "")
    own = {
        **(meta.get("labels") or {}),
        **_namespace_label(meta),
        "projectcalico.org/orchestrator": "k8s",
        **({"projectcalico.org/serviceaccount": service_account} if service_account else {}),
    }
    restarted = [one for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always"]
    return LabelledEndpoint(
        name=pod_name(pod),
        node=str(spec.get("nodeName") or ""),
        addresses=addresses(pod),
        labels=_pairs(own),
        namespace=str(meta["namespace"]),
        namespace_labels=with_name(namespace),
        service_account=service_account,
        service_account_labels=with_name(account),
        ports=tuple(
            (str(port["name"]), str(port.get("protocol") or "TCP").lower(), int(port["containerPort"]))
            for container in (*(spec.get("containers") or ()), *restarted)
            for port in container.get("ports") or ()
            if port.get("name")
        ),
    )


def host_endpoint(resource: Object, felix: Object) -> LabelledEndpoint:
    """felix: spec of FelixConfiguration, default overlaid by its node's."""
    meta, spec = metadata(resource), _spec(resource)
    return LabelledEndpoint(
        name=str(meta["name"]),
        kind="host",
        node=str(spec.get("node") or ""),
        addresses=tuple(spec.get("expectedIPs") or ()),
        labels=_pairs(meta.get("labels") or {}),
        ports=tuple(
            (str(one["name"]), str(one.get("protocol") or "TCP").lower(), int(one["port"]))
            for one in spec.get("ports") or ()
        ),
        interface=str(spec.get("interfaceName") or ""),
        profiles=tuple(spec.get("profiles") or ()),
        failsafe_in=_failsafe(felix.get("failsafeInboundHostPorts"), FAILSAFE_IN),
        failsafe_out=_failsafe(felix.get("failsafeOutboundHostPorts"), FAILSAFE_OUT),
    )


def _failsafe(written: Sequence[Object] | None, default: tuple[str, ...]) -> tuple[str, ...]:
    if written is None:
        return default
    return tuple(
        f"{one['port']}/{str(one.get('protocol') or 'TCP').lower()} {one.get('net') or ''}".strip() for one in written
    )


def with_name(resource: Object | None) -> Labels:
    """Labels of a namespace or service account as Calico has them: its own, and its name under one of Calico's."""
    if resource is None:
        return ()
    meta = resource["metadata"]
    return _pairs({**(meta.get("labels") or {}), "projectcalico.org/name": meta["name"]})


def _namespace_label(meta: Object) -> dict[str, str]:
    return {"projectcalico.org/namespace": str(meta["namespace"])} if meta.get("namespace") else {}


def _pairs(labels: Object) -> Labels:
    return tuple(sorted((str(key), str(value)) for key, value in labels.items()))


def _spec(resource: Object) -> Object:
    return resource.get("spec") or {}


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _number(value: int | None) -> int:
    return -1 if value is None else int(value)
