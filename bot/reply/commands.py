"""What a reader can type: to see a fact with own eyes, and to mend by hand; without it an answer had to be believed.

Each is whole, as a shell takes it. Where it is typed stands before it like a prompt: a node, a pod, or anywhere.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bot.reply import evidence
from facts import (
    AddressHolders,
    Allocation,
    Backend,
    BgpPeer,
    Bird,
    BlockClaim,
    CalicoFirewall,
    CalicoNode,
    CalicoPod,
    CalicoService,
    CalicoSettings,
    Cause,
    ConnectionTable,
    Diagnosis,
    Endpoint,
    Fact,
    FdbEntry,
    FelixHealth,
    ForeignVxlans,
    GarbageCollector,
    Leg,
    Link,
    LinkAddresses,
    Listener,
    MacSharers,
    Neighbor,
    NeighborTable,
    NodeAddress,
    PeerGateway,
    PodInterface,
    PodRoute,
    Pool,
    PoolUsage,
    ProbeResult,
    RouteLookup,
    RoutingRules,
    RuleDrop,
    RuleRewrite,
    ServicePort,
    Sighting,
    Sysctl,
    TrafficControl,
    Typha,
    WireguardDevice,
    WireguardPeer,
)
from facts.sysctl import typed
from fixes.kind import NodeKind, kinds

MOST = 3  # to see a cause with; the table of the evidence has the rest
ANYWHERE = ""
OWN_TABLES = ("calico", "kube-proxy")  # one for each family


class Command(NamedTuple):
    """place: a node, namespace/name of a pod, or ANYWHERE that kubectl and calicoctl work."""

    place: str
    line: str

    def __str__(self) -> str:
        return f"{self.place}# {self.line}" if self.place else f"$ {self.line}"


def to_see(cause: Cause, diagnosis: Diagnosis) -> list[Command]:
    """Those that show what is not as expected of the facts the cause rests on; where nothing is, all that is shown."""
    legs = [fact for fact in diagnosis.facts if isinstance(fact, Leg)]
    cited = sorted(
        (fact for fact in diagnosis.facts if fact.id in cause.evidence), key=lambda fact: cause.evidence.index(fact.id)
    )
    wrong = [shows(fact, diagnosis.facts) for fact in cited if _has_program(fact) or evidence.is_wrong(fact, legs)]
    found = wrong if any(wrong) else [shows(fact, diagnosis.facts) for fact in cited if not _only_about(fact)]
    return list(dict.fromkeys(filter(None, found)))[:MOST]


def _only_about(fact: Fact) -> bool:
    """A rule needs it to know what it speaks of; who looks at it sees nothing wrong."""
    return isinstance(fact, CalicoNode | Endpoint) or (isinstance(fact, Link) and not fact.programs)


def _has_program(fact: Fact) -> bool:
    """Of somebody's, on a device (XDP): none is expected, though it may do no harm."""
    return isinstance(fact, Link) and bool(fact.programs)


def by_hand(cause: Cause, facts: Sequence[Fact]) -> list[Command]:
    """What the fix that can be approved would do, for who does it himself; [] where that is no command or too many."""
    for kind in filter(None, map(kinds().get, (cause.fix, *cause.other_fixes))):
        arguments = kind.propose(cause, facts)
        if arguments is not None:
            place = cause.node if isinstance(kind, NodeKind) else ANYWHERE
            return [Command(place, line) for line in kind.by_hand(arguments)]
    return []


def shows(fact: Fact, facts: Sequence[Fact]) -> Command | None:
    """The command that tells a person this fact, where there is one. facts: all of the diagnosis."""
    found: Command | tuple[str, ...] | None
    if isinstance(fact, PodInterface):
        found = _pod_interface(fact, [one for one in facts if isinstance(one, Leg)])
    elif isinstance(fact, Sighting):
        found = _sighting(fact, [one for one in facts if isinstance(one, Leg)])
    elif isinstance(fact, FelixHealth):
        found = _felix(fact, facts)
    else:
        show = _SHOW.get(type(fact))
        found = show(fact) if show else None
    if found is None or isinstance(found, Command):
        return found
    place, *words = found
    return Command(place, shlex.join(words))


def _route(fact: RouteLookup) -> tuple[str, ...]:
    """`get` says of a route that refuses, and of none, only that it failed."""
    if fact.type != "unicast" and not fact.incoming:
        version = "-6" if ":" in fact.destination else "-4"
        return fact.node, "ip", version, "route", "show", "match", fact.destination
    way = ("from", fact.source, "iif", fact.incoming) if fact.incoming else ()
    return (fact.node, "ip", "route", "get", fact.destination, *way, "fibmatch")


def _pod_interface(fact: PodInterface, legs: Sequence[Leg]) -> tuple[str, ...]:
    """What is wrong with it may stand inside the pod."""
    if fact.entered and fact.pod_gateway_state == "PERMANENT" and fact.pod_gateway_mac != fact.mac:
        return fact.pod, "ip", "neigh"
    if fact.entered and (not fact.pod_up or not fact.pod_ipv6 or evidence.stranger(fact, legs)):
        return fact.pod, "ip", "addr"
    return fact.node, "ip", "-d", "link", "show", "dev", fact.interface


def _sysctl(fact: Sysctl) -> tuple[str, ...]:
    return fact.node, "sysctl", typed(fact.name, fact.device)


def _sighting(fact: Sighting, legs: Sequence[Leg]) -> tuple[str, ...] | None:
    """To be run while packets are sent, such as by asking again."""
    ends = {(leg.source_address, leg.target_address): leg for leg in legs}
    leg = ends.get((fact.source_address, fact.target_address))
    carried = {
        "vxlan": f"udp port {leg.vxlan_port}" if leg else "",
        "ipip": "ip proto 4",
        "direct": f"src host {fact.source_address}",
    }
    if leg is None or leg.encapsulation not in carried:
        return None
    outer = f"src host {leg.source_node_address} and " if leg.encapsulation != "direct" else ""
    wanted = f"{outer}{carried[leg.encapsulation]}"
    return fact.node, "timeout", "10", "tcpdump", "-nnvi", "any", wanted


def _sent(fact: ProbeResult) -> tuple[str, ...] | None:
    """Where the node's own kernel let none out, its routes say why."""
    return (fact.node, "ip", "route", "get", fact.target_address) if not fact.pod and not fact.sent else None


def _calico_pods(app: str, node: str = "") -> tuple[str, ...]:
    here = ("--field-selector", f"spec.nodeName={node}") if node else ()
    return ANYWHERE, "kubectl", "get", "pods", "-A", "-o", "wide", "-l", f"k8s-app={app}", *here


def _felix(fact: FelixHealth, facts: Sequence[Fact]) -> tuple[str, ...]:
    ports = (one.felix_health_port for one in facts if isinstance(one, CalicoNode) and one.name == fact.node)
    return fact.node, "curl", "-sS", f"http://localhost:{next(ports, 9099)}/readiness"


def _listener(fact: Listener) -> tuple[str, ...]:
    return fact.pod, "ss", "-lnt" if fact.protocol == "tcp" else "-lnu"


def _rule(fact: RuleDrop | RuleRewrite) -> Command | None:
    """Of a table whose family is not known the rule is looked for; -a tells the handle that `nft delete rule` wants."""
    place = (fact.pod if isinstance(fact, RuleDrop) else "") or fact.node
    if not fact.text or not fact.backend:
        return None
    if fact.backend == "nft" and fact.table in OWN_TABLES:
        family = "ip6" if fact.family == 6 else "ip"
        return Command(place, shlex.join(("nft", "-s", "-a", "list", "chain", family, fact.table, fact.chain)))
    if fact.backend == "nft":
        return Command(place, f"nft -s -a list ruleset | grep -F -- {shlex.quote(fact.text)}")
    tool = fact.backend.replace("iptables", "ip6tables") if fact.family == 6 else fact.backend
    return Command(place, shlex.join((tool, "-t", fact.table, "-vnL", fact.chain, "--line-numbers")))


def _traffic_control(fact: TrafficControl) -> tuple[str, ...]:
    return fact.pod or fact.node, "tc", "-s", "filter", "show", "dev", fact.device, _hook(fact.going)


def _hook(going: str) -> str:
    return "ingress" if going == "in" else "egress"


def _namespaced(name: str) -> tuple[str, str]:
    namespace, _, name = name.rpartition("/")
    return namespace, name


def _endpoint(fact: Endpoint) -> tuple[str, ...] | None:
    if fact.kind != "pod":
        return None
    namespace, name = _namespaced(fact.name)
    return ANYWHERE, "kubectl", "-n", namespace, "get", "pod", name, "-o", "wide"


def _service(fact: ServicePort) -> tuple[str, ...]:
    if fact.found:
        return _slices(fact.service)
    namespace, name = _namespaced(fact.service)
    return ANYWHERE, "kubectl", "-n", namespace, "get", "service", name, "-o", "wide"


def _firewall(fact: CalicoFirewall) -> Command:
    """Its maps, of which empty ones let no pod send; else what leads into its chains."""
    family = "ip6" if fact.family == 6 else "ip"
    if set(fact.backends) > set(fact.entered) and "nftables" not in fact.backends:
        save = "ip6tables-save" if fact.family == 6 else "iptables-save"
        return Command(fact.node, f"{save} -t filter | grep -F cali-FORWARD")
    if "nftables" in fact.entered:
        return Command(fact.node, f"nft list maps {family}")
    return Command(fact.node, f"nft -s list table {family} calico | grep -F cali-FORWARD")


def _typha(fact: Typha) -> tuple[str, ...]:
    return _slices(fact.service)


def _slices(service: str) -> tuple[str, ...]:
    namespace, name = _namespaced(service)
    label = f"kubernetes.io/service-name={name}"
    return ANYWHERE, "kubectl", "-n", namespace, "get", "endpointslices", "-l", label


def _settings(fact: CalicoSettings) -> tuple[str, ...] | None:
    if not fact.datastore_ready:
        return ANYWHERE, "calicoctl", "get", "clusterinformation", "default", "-o", "yaml"
    if fact.routes_said:
        return ANYWHERE, "calicoctl", "get", "felixconfiguration", "default", "-o", "yaml"
    return None


def _pool(fact: Pool) -> tuple[str, ...]:
    return ANYWHERE, "calicoctl", "get", "ippool", fact.name, "-o", "yaml"


_SHOW: dict[type[Fact], Callable[[Any], Command | tuple[str, ...] | None]] = {
    Neighbor: lambda fact: (fact.node, "ip", "neigh", "get", fact.address, "dev", fact.device),
    PeerGateway: lambda fact: (fact.node, "ip", "neigh", "get", fact.address, "dev", fact.device),
    FdbEntry: lambda fact: (fact.node, "bridge", "fdb", "get", fact.mac, "dev", fact.device, "self"),
    RouteLookup: _route,
    Link: lambda fact: (fact.node, "ip", "-d", "link", "show", "dev", fact.device),
    LinkAddresses: lambda fact: (fact.node, "ip", f"-{fact.family}", "addr", "show", "dev", fact.device),
    NodeAddress: lambda fact: (fact.node, "ip", "-br", "addr"),
    ForeignVxlans: lambda fact: (fact.node, "ip", "-d", "link", "show", "type", "vxlan"),
    MacSharers: lambda fact: (fact.node, "ip", "neigh", "show", "dev", fact.device, "nud", "permanent"),
    NeighborTable: lambda fact: (
        fact.node,
        "ip",
        "-s",
        "ntable",
        "show",
        "name",
        "arp_cache" if fact.family == 4 else "ndisc_cache",
    ),
    ConnectionTable: lambda fact: (
        fact.node,
        "sysctl",
        "net.netfilter.nf_conntrack_count",
        "net.netfilter.nf_conntrack_max",
    ),
    RoutingRules: lambda fact: (fact.node, "ip", f"-{fact.family}", "rule"),
    PodRoute: lambda fact: (fact.pod, "ip", "route", "get", fact.destination, "fibmatch"),
    Sysctl: _sysctl,
    Listener: _listener,
    RuleDrop: _rule,
    RuleRewrite: _rule,
    TrafficControl: _traffic_control,
    WireguardDevice: lambda fact: (fact.node, "wg", "show", fact.device),
    WireguardPeer: lambda fact: (fact.node, "wg", "show", fact.device),
    Bird: lambda fact: (fact.node, "calicoctl", "node", "status"),
    CalicoFirewall: _firewall,
    CalicoPod: lambda fact: _calico_pods("calico-node", fact.node),
    GarbageCollector: lambda fact: _calico_pods("calico-kube-controllers"),
    ProbeResult: _sent,
    CalicoService: lambda fact: (fact.node, "pgrep", "-af", "calico-node|bird"),
    Backend: lambda fact: _slices(fact.service),
    BlockClaim: lambda fact: (
        ANYWHERE,
        "kubectl",
        "get",
        "blockaffinities",
        "-o",
        "custom-columns=NODE:.spec.node,BLOCK:.spec.cidr,STATE:.spec.state",
    ),
    BgpPeer: lambda fact: (fact.node, "calicoctl", "node", "status"),
    Allocation: lambda fact: (ANYWHERE, "calicoctl", "ipam", "show", f"--ip={fact.address}"),
    AddressHolders: lambda fact: (
        ANYWHERE,
        "kubectl",
        "get",
        "pods",
        "-A",
        "-o",
        "wide",
        "--field-selector",
        f"status.podIP={fact.address}",
    ),
    CalicoNode: lambda fact: (ANYWHERE, "calicoctl", "get", "node", fact.name, "-o", "yaml"),
    CalicoSettings: _settings,
    Endpoint: _endpoint,
    Pool: _pool,
    PoolUsage: lambda fact: (ANYWHERE, "calicoctl", "ipam", "show", "--show-blocks"),
    ServicePort: _service,
    Typha: _typha,
}
