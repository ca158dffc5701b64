"""Whose intention the rule was that ended a packet; without it a person would read chains instead of policies.

Names of chains, their comments, how policies become rules: felix/rules of Calico 3.26 to 3.32, and what was recorded.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from facts.firewall import Blame, RuleDrop
from facts.policy import Policy, PolicyRule

LONGEST = 28  # characters of an iptables chain's name
CALICO_TABLE = "calico"  # of nftables; there a chain's name begins with the iptables table it stands for
LAYER = re.compile(r"(filter|nat|mangle|raw)-(.+)")
POLICY_CHAIN = re.compile(r"cali-(p[io])-(.+)")
PROFILE_CHAIN = re.compile(r"cali-(pr[io])-(.+)")
DISPATCH = re.compile(r"cali-(from|to)-wl-dispatch")
ENDPOINT_CHAIN = re.compile(r"cali-(tw|fw|th|fh|thfw|fhfw)-(.+)")
EVERY_INTERFACE = "any-interface-at-all"
INGRESS = ("pi", "pri", "tw", "fh", "fhfw")  # what comes to a pod, what comes from outside to a host
FORWARD = ("thfw", "fhfw")
HOST = ("th", "fh", *FORWARD)
TITLE = re.compile(r"(\S+) (\S+?)(?: (ingress|egress))?$")
NAMED_RULE = re.compile(r"(?:^|[; ])name=(\S+)")
SHORT = {
    "knp": "KubernetesNetworkPolicy",
    "np": "NetworkPolicy",
    "gnp": "GlobalNetworkPolicy",
    "kcnp": "KubernetesClusterNetworkPolicy",
}
# What Calico writes beside its rules. It begins with the action, so "Reject" is the same as "Drop".
SAYINGS = (
    (re.compile(r"no policies passed packet"), "end_of_tier"),
    (re.compile(r"no profiles matched"), "no_profile"),
    (re.compile(r"Endpoint admin disabled"), "endpoint_down"),
    (re.compile(r"VXLAN packets from non-"), "vxlan_source"),
    (re.compile(r"(?:IPIP|IPinIP) packets from non-"), "ipip_source"),
    (re.compile(r"encapped packets originating in workloads"), "encapsulation"),
    (re.compile(r"DefaultEndpointToHostAction"), "own_host"),
    (re.compile(r"over .*\blimit\b"), "limit"),
)
# The same in nft's words for iptables' rules, which have no comments. Chains as iptables calls them.
UNSAID = (
    (
        re.compile(r"cali-(?:tw|fw|th|fh|thfw|fhfw)-"),
        re.compile(r"mark & 0x0*20000 == 0x0+ counter (?:drop|reject)"),
        "end_of_tier",
    ),
    (re.compile(r"cali-fw-"), re.compile(r"l4proto (?:17 udp dport \S+|4) counter"), "encapsulation"),
    (re.compile(r"cali-INPUT$"), re.compile(r"l4proto 17 udp dport"), "vxlan_source"),
    (re.compile(r"cali-INPUT$"), re.compile(r"l4proto 4 "), "ipip_source"),
    (re.compile(r"cali-wl-to-host$"), re.compile(r"^counter"), "own_host"),
)
INVALID = re.compile(r"--(?:ct)?state INVALID|\bct state (?:invalid|0x0*1)\b(?!,)")
REVERSE_PATH = re.compile(r"\brpfilter\b|\bfib saddr\b")
# Programs by the names of their chains or tables, the first that fits.
OWNERS = (
    ("kube-router", re.compile(r"KUBE-(?:ROUTER|POD-FW|NWPLCY|SVC-ACCESS)")),
    ("kubelet", re.compile(r"KUBE-(?:FIREWALL|KUBELET)")),
    ("kube-proxy", re.compile(r"KUBE-|kube-proxy$")),
    ("docker", re.compile(r"DOCKER|docker")),
    (
        "firewalld",
        re.compile(
            r"firewalld|FWD[IO]?_|(?:INPUT|FORWARD|OUTPUT|PREROUTING|POSTROUTING)_(?:direct|ZONES|IN_|OUT_|POLICIES)"
            r"|IN_(?:public|drop|block|dmz|external|home|internal|trusted|work)\b"
        ),
    ),
    ("ufw", re.compile(r"ufw6?-")),
    ("libvirt", re.compile(r"LIBVIRT|libvirt")),
    ("podman", re.compile(r"NETAVARK|netavark")),
    ("CNI plugins", re.compile(r"CNI-")),
    ("flannel", re.compile(r"FLANNEL|flannel")),
    ("cilium", re.compile(r"(?:OLD_)?CILIUM")),
    ("weave", re.compile(r"WEAVE-")),
    ("istio", re.compile(r"ISTIO_")),
    ("fail2ban", re.compile(r"f2b-|fail2ban")),
    ("crowdsec", re.compile(r"CROWDSEC|crowdsec")),
    ("tailscale", re.compile(r"ts-(?:input|forward|postrouting)|tailscale")),
    ("nixos", re.compile(r"nixos-")),
)
KUBE_PROXY = (
    (re.compile(r"has no local endpoints|vmap @no-endpoint-(?:services|nodeports)"), "no_local_endpoints"),
    (re.compile(r"has no endpoints|reject-chain"), "no_endpoints"),
    (re.compile(r"unallocated ClusterIPs"), "unallocated"),
    (re.compile(r"invalid ports of ClusterIPs"), "wrong_port"),
    (re.compile(r"KUBE-(?:FW-|PROXY-FIREWALL)|\bfirewall-"), "source_range"),
    (INVALID, "invalid"),
)
SERVICE = re.compile(r"^([\w.-]+/[\w.-]+(?::[\w.-]*)?)(?: has no| loadbalancer)")
ELEMENT = re.compile(r"[\w.-]+/[\w.-]+(?::[\w.-]*)?")
SERVICES_CHAIN = re.compile(
    r"(?:service|external|firewall|endpoint)-[A-Z2-7]{8}-([\w.-]+/[\w.-]+)/(?:tcp|udp|sctp)/([\w.-]*?)(?:__|$)"
)


def blame(drop: RuleDrop, policies: Iterable[Policy]) -> Blame:
    """Whose rule it was. policies: all that were read; of one that is not among them, what the rules say is told."""
    chain = _bare(drop, drop.chain)
    found = _calico(drop, chain, tuple(policies)) if chain.startswith("cali-") else _others(drop)
    return Blame(
        drop=drop.id,
        node=drop.node,
        source_address=drop.source_address,
        target_address=drop.target_address,
        reply=drop.reply,
        outer=drop.outer,
        **found,
    )


def _bare(drop: RuleDrop, chain: str) -> str:
    """The chain as iptables would call it."""
    layered = LAYER.fullmatch(chain) if drop.table == CALICO_TABLE else None
    return layered[2] if layered else chain


def _calico(drop: RuleDrop, chain: str, policies: tuple[Policy, ...]) -> dict[str, Any]:
    where = _endpoint(drop, chain)
    if match := PROFILE_CHAIN.fullmatch(chain):
        title = TITLE.fullmatch(drop.title)
        direction = "ingress" if match[1] in INGRESS else "egress"
        return {
            **where,
            "what": "profile",
            "kind": "Profile",
            "name": title[2] if title else match[2],
            "direction": direction,
        }
    if match := POLICY_CHAIN.fullmatch(chain):
        return {**where, **_policy(drop, chain, match[1], policies)}
    if not drop.text:
        return {**where, "what": "unknown"}
    # Felix marks every rule it wrote. An nft that cannot print iptables' comments shows none, and proves nothing.
    if "cali:" not in drop.text and (drop.backend != "nft" or drop.table == CALICO_TABLE):
        return {**where, "what": "foreign"}
    what = next((what for saying, what in SAYINGS if saying.search(drop.comment)), "") or _without_saying(drop, chain)
    if what == "end_of_tier":
        titles = [*drop.consulted_titles, *[""] * len(drop.consulted)]
        consulted = [
            _name(_bare(drop, one), title, policies) for one, title in zip(drop.consulted, titles, strict=False)
        ]
        return {**where, "what": what, "tier": drop.tier, "consulted": tuple(map(str, consulted))}
    return {**where, "what": what}


def _without_saying(drop: RuleDrop, chain: str) -> str:
    if match := DISPATCH.match(chain):  # there is nothing else that drops
        return f"unknown_interface_{match[1]}"
    if chain == "cali-PREROUTING" and REVERSE_PATH.search(drop.text):
        return "reverse_path"
    if chain == "cali-cidr-block":
        return "service_loop"
    if INVALID.search(drop.text):
        return "invalid"
    if drop.backend == "nft" and drop.table != CALICO_TABLE:
        return next((what for at, words, what in UNSAID if at.match(chain) and words.search(drop.text)), "calico")
    return "calico"


def _endpoint(drop: RuleDrop, chain: str) -> dict[str, Any]:
    """Of which endpoint, and in which direction: the last endpoint's chain on the way tells."""
    for name in (chain, *(_bare(drop, one) for one in reversed(drop.through))):
        if match := ENDPOINT_CHAIN.fullmatch(name):
            of, interface = match.groups()
            every = interface == EVERY_INTERFACE or name == limited(f"cali-{of}-", EVERY_INTERFACE)
            return {
                "endpoint": "host" if of in HOST else "pod",
                "interface": "*" if every else interface,
                "direction": "ingress" if of in INGRESS else "egress",
                "forward": of in FORWARD,
            }
    return {}


def _policy(drop: RuleDrop, chain: str, of: str, policies: tuple[Policy, ...]) -> dict[str, Any]:
    named = _name(chain, drop.title, policies)
    direction = "ingress" if of in INGRESS else "egress"
    number, name = 0, NAMED_RULE.search(drop.comment)
    if named.policy:
        rules = named.policy.ingress if direction == "ingress" else named.policy.egress
        denies = [n for n, rule in enumerate(rules, 1) if rule.action == "Deny" and _in_family(rule, drop.family)]
        # Each Deny becomes one rule that drops, in the same order. Other counts: the policy was read at another moment.
        if len(denies) == drop.drops and drop.nth:
            number = denies[drop.nth - 1]
    return {
        "what": "policy",
        "kind": named.kind,
        "namespace": named.namespace,
        "name": named.name,
        "tier": drop.tier or (named.policy.tier if named.policy else ""),
        "direction": direction,
        "rule": number,
        "rule_name": name[1] if name else "",
    }


def _in_family(rule: PolicyRule, family: int) -> bool:
    """Felix leaves a rule out of a family's table that has addresses, and none of that family."""
    if rule.ip_version not in (0, family):
        return False
    for peer in (rule.source, rule.destination):
        for nets in (peer.nets, peer.not_nets):
            if nets and not any((":" in net) == (family == 6) for net in nets):
                return False
        if ("::/0" if family == 6 else "0.0.0.0/0") in peer.not_nets:
            return False
    return True


# --- names ---


@dataclass(frozen=True)
class _Named:
    """A policy as far as its chain or the comment in it tells."""

    kind: str
    namespace: str
    name: str
    policy: Policy | None = None

    def __str__(self) -> str:
        name = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {name}".strip()


def limited(prefix: str, id: str, longest: int = LONGEST) -> str:
    """A chain's name as Felix makes it: what is too long is a hash that fills the rest."""
    if len(prefix) + len(id) <= longest:
        return prefix + id
    digest = base64.urlsafe_b64encode(hashlib.sha256(id.encode()).digest()).decode()
    return f"{prefix}_{digest}"[:longest]


def chain_names(policy: Policy, direction: str) -> frozenset[str]:
    """What any version of Felix may call the chain of this policy's rules, in iptables and in nftables (bare)."""
    prefix = "cali-pi-" if direction == "ingress" else "cali-po-"
    ids = list(_ids(policy))
    return frozenset([limited(prefix, one) for one in ids] + [prefix + one for one in ids])


def _ids(policy: Policy) -> Iterator[str]:
    short = next((short for short, kind in SHORT.items() if kind == policy.kind), "")
    place = f"{policy.namespace}/" if policy.namespace else ""
    # A policy's name was stored with its tier's before it, and in tier default it need not say so.
    names = {policy.name, f"{policy.tier}.{policy.name}", policy.name.removeprefix("default.")}
    for name in names:
        yield f"{short}/{place}{name}"  # 3.32
    for name in {f"knp.default.{policy.name}"} if short == "knp" else names:
        yield f"{policy.tier}/{place}{name}"  # 3.29 to 3.31
        yield f"{place}{name}"  # until 3.28


def _name(chain: str, title: str, policies: tuple[Policy, ...]) -> _Named:
    told = _titled(title) or _readable(chain)
    direction = "ingress" if chain.startswith("cali-pi-") else "egress"
    fit = [one for one in policies if not one.staged and chain in chain_names(one, direction)]
    if len(fit) != 1:  # before 3.32 no kind was in the name, and a tier could be called like a namespace
        fit = [one for one in fit or policies if not one.staged and told and _same(one, told)]
    if len(fit) == 1:
        return _Named(fit[0].kind, fit[0].namespace, fit[0].name, fit[0])
    return told or _Named("", "", chain)


def _same(policy: Policy, told: _Named) -> bool:
    if told.kind and told.kind != policy.kind:
        return False
    bare = {policy.name, policy.name.removeprefix("default."), f"{policy.tier}.{policy.name}"}
    return told.namespace == policy.namespace and told.name in bare


def _titled(title: str) -> _Named | None:
    """ "NetworkPolicy default/web ingress" of 3.32, "Policy default/knp.default.web ingress" of its predecessors."""
    match = TITLE.fullmatch(title)
    if match is None:
        return None
    kind, name = match[1], match[2]
    return _old(name) if kind == "Policy" else _placed(kind, name)


def _placed(kind: str, name: str) -> _Named:
    namespace, _, name = name.rpartition("/")
    return _Named(kind, namespace, name)


def _old(name: str) -> _Named:
    namespace, _, name = name.rpartition("/")
    namespace = namespace.rpartition("/")[2]
    if name.startswith("knp.default."):
        return _Named("KubernetesNetworkPolicy", namespace, name.removeprefix("knp.default."))
    if name.startswith(("kanp.", "kbanp.")):
        return _Named("", "", name)
    kind = "NetworkPolicy" if namespace else "GlobalNetworkPolicy"
    return _Named(kind, namespace, name.removeprefix("default."))


def _readable(chain: str) -> _Named | None:
    """From a chain's name that was short enough to stay one. An old one with a single / may mean two things."""
    match = POLICY_CHAIN.fullmatch(chain)
    if match is None or match[2].startswith("_"):
        return None
    short, _, rest = match[2].partition("/")
    if short in SHORT and rest:
        return _placed(SHORT[short], rest)
    return _old(match[2]) if match[2].count("/") != 1 or "/knp.default." in match[2] else None


# --- rules of others ---


def _others(drop: RuleDrop) -> dict[str, Any]:
    program = owner((drop.chain, *reversed(drop.through), drop.table))
    if program != "kube-proxy":
        return {"what": "foreign", "owner": program}
    told = " ".join((drop.comment, drop.text, drop.chain, *drop.through))
    why = next((why for pattern, why in KUBE_PROXY if pattern.search(told)), "")
    if not why and drop.chain in ("KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES"):  # in nft's words, without comments
        why = "no_endpoints" if drop.verdict == "reject" else "no_local_endpoints"
    return {
        "what": "kube_proxy",
        "owner": program,
        "why": why,
        "service": _service(drop),
    }


def _service(drop: RuleDrop) -> str:
    """As its comment says in iptables, as the map's element does in nftables, or else a chain on the way there."""
    if match := SERVICE.match(drop.comment):
        return match[1]
    if ELEMENT.fullmatch(drop.element):
        return drop.element
    for name in (drop.chain, *reversed(drop.through)):
        if match := SERVICES_CHAIN.match(name):
            return f"{match[1]}:{match[2]}" if match[2] else match[1]
    return ""


def owner(names: Iterable[str]) -> str:
    """The program that calls a chain or table so; "" where none is known to."""
    return next((program for name in names for program, pattern in OWNERS if pattern.match(name)), "")
