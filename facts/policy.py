"""Policies as Calico means them; without it a dropped packet's rule could be named, but nobody's intention."""

from __future__ import annotations

import msgspec

from facts.fact import Fact

POLICY_KINDS = (
    "KubernetesNetworkPolicy",
    "NetworkPolicy",
    "GlobalNetworkPolicy",
    "KubernetesClusterNetworkPolicy",
)


class PolicyPeer(msgspec.Struct, frozen=True, kw_only=True):
    """Source or destination of a rule. Everything that is given must match; nothing given matches everybody."""

    nets: tuple[str, ...] = ()  # CIDRs, of either family
    not_nets: tuple[str, ...] = ()
    selector: str = ""  # Calico's selector language, over endpoints and network sets
    not_selector: str = ""
    namespace_selector: str = ""  # "global()" means network sets and host endpoints outside of namespaces
    service_account_names: tuple[str, ...] = ()
    service_account_selector: str = ""
    ports: tuple[str, ...] = ()  # "80", "8000:8080", or a named port of the pod
    not_ports: tuple[str, ...] = ()
    service: str = ""  # namespace/name of a Service whose endpoints (and ports) it means
    service_endpoints: tuple[str, ...] = ()  # of these, the asked ones: "10.244.0.5" or "10.244.0.5 5432/tcp"
    service_read: bool = True  # False: whom it means could not be read: the endpoints, or what domain names lead to


class PolicyRule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule, in the order the policy lists them."""

    action: str  # "Allow" | "Deny" | "Pass" | "Log"
    name: str = ""  # of a ClusterNetworkPolicy's rule
    ip_version: int = 0  # 4 | 6; 0: both
    protocol: str = ""  # "tcp", "udp", "icmp", "icmpv6", "sctp", or a number; "": any
    not_protocol: str = ""
    icmp_type: int = -1
    icmp_code: int = -1
    not_icmp_type: int = -1
    not_icmp_code: int = -1
    source: PolicyPeer = PolicyPeer()
    destination: PolicyPeer = PolicyPeer()


class Policy(Fact, frozen=True, kw_only=True):
    """One policy of any kind, in Calico's model (a Kubernetes NetworkPolicy is one of tier default, order 1000)."""

    kind: str  # one of POLICY_KINDS
    name: str
    namespace: str = ""
    tier: str = "default"
    order: str = ""  # a number as text; "" comes last
    staged: bool = False  # not programmed: it only says what it would do
    removes: bool = False  # a staged one that would take away the policy of its name
    selector: str = ""  # of the endpoints it is about, its own namespace understood
    namespace_selector: str = ""
    service_account_selector: str = ""
    types: tuple[str, ...] = ()  # "Ingress" | "Egress"; none: both, as Felix has it
    ingress: tuple[PolicyRule, ...] = ()
    egress: tuple[PolicyRule, ...] = ()
    apply_on_forward: bool = False
    pre_dnat: bool = False
    do_not_track: bool = False


class Tier(Fact, frozen=True, kw_only=True):
    """A tier of policies; the order in which tiers are asked, and what comes of a packet none of its policies takes."""

    name: str
    order: str = ""
    default_action: str = "Deny"  # "Deny" | "Pass"


class LabelledEndpoint(Fact, frozen=True, kw_only=True):
    """What policies select an endpoint by."""

    name: str  # namespace/name of a pod, or the name of a HostEndpoint
    kind: str = "pod"  # "pod" | "host"
    node: str = ""
    addresses: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()  # its own, with Calico's (projectcalico.org/namespace, .../orchestrator)
    namespace: str = ""
    namespace_labels: tuple[tuple[str, str], ...] = ()  # with projectcalico.org/name, its own name
    service_account: str = ""
    service_account_labels: tuple[tuple[str, str], ...] = ()
    ports: tuple[tuple[str, str, int], ...] = ()  # named ones: (name, protocol, number)
    interface: str = ""  # of a HostEndpoint: "eth0", or "*"
    profiles: tuple[str, ...] = ()  # of a HostEndpoint
    failsafe_in: tuple[str, ...] = ()  # of a HostEndpoint, what its policies never stop: "22/tcp", "22/tcp 10.0.0.0/8"
    failsafe_out: tuple[str, ...] = ()


class NetworkSet(Fact, frozen=True, kw_only=True):
    """Addresses with labels, which rules select like endpoints."""

    name: str
    namespace: str = ""  # "" for a GlobalNetworkSet
    labels: tuple[tuple[str, str], ...] = ()
    namespace_labels: tuple[tuple[str, str], ...] = ()
    nets: tuple[str, ...] = ()


class PoliciesRead(Fact, frozen=True, kw_only=True):
    """The policies about the asked ends were looked up; only then does a missing one mean that there is none."""

    missing: tuple[str, ...] = ()  # kinds that exist and could not be read: what is allowed cannot be said then
    names_first: bool = True  # policies of one order are sorted by name before namespace (3.32 and later)
    staged_read: bool = True  # False: some staged ones could not be; they decide nothing
    told: int = -1  # facts about them that were sent along: fewer are not all of them; -1: not counted
    stood_s: int = -1  # so long before the packets that were followed they were the same already; -1: read only once


class PolicyOpinion(Fact, frozen=True, kw_only=True):
    """What the policies say of packets of one kind at one end of a leg: a second opinion, for the kernel decides."""

    flow: str
    leg: str  # "forward" | "reverse"
    node: str
    endpoint: str  # LabelledEndpoint whose policies these are
    endpoint_kind: str = "pod"  # "pod" | "host"
    direction: str  # "egress" | "ingress", as seen from that endpoint
    forward: bool = False  # only what is applied on forward counts: the packet passes this host
    family: int
    protocol: str  # icmp | tcp | udp
    port: int = 0
    verdict: str  # "allow" | "deny" | "unknown"
    by: str = ""  # "rule" | "end of tier" | "profile" | "no profile" | "failsafe" | "no policy"; "" for unknown
    tier: str = ""
    kind: str = ""  # of the policy whose rule decided, one of POLICY_KINDS
    namespace: str = ""
    name: str = ""
    rule: int = 0  # 1 for the policy's first rule of that direction
    rule_name: str = ""
    consulted: tuple[str, ...] = ()  # at the end of a tier: its policies about this endpoint, "NetworkPolicy shop/db"
    # Why it is unknown: "read" | "source" (its address) | "target" (which endpoint of a Service it comes to) | "rule"
    # (one needs what nobody knows).
    doubt: str = ""
    staged: str = ""  # the verdict, were the staged policies enforced; "" where that is the same
    staged_by: tuple[str, ...] = ()  # the staged policies about this endpoint


class PolicyBypass(Fact, frozen=True, kw_only=True):
    """A fresh packet that the policies deny at one end of a leg was met behind that end all the same."""

    opinion: str  # id of the PolicyOpinion
    sighting: str  # id of the StageSighting
    node: str  # whose kernel let it pass
    flow: str
    leg: str
    stage: str  # of facts.flow.STAGES, where the policies are asked


class PolicyAllows(Fact, frozen=True, kw_only=True):
    """All that policies let pass from a leg's source to its target."""

    flow: str
    leg: str
    allowed: tuple[str, ...]  # "5432/tcp", "8000-8080/tcp", "tcp", "icmp", "other"; () for nothing
    doubtful: tuple[str, ...] = ()  # of which it cannot be said
