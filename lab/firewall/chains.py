"""The chains Felix programs on a node, called as in nftables mode; without them nothing in the lab could be denied.

Names, order, comments and mark bits are those of a running Calico v3.32.1 (recorded, calico_truth_2.md), and of older
ones as calico.md 4.2 tells them. What a chain holds for policies is made in lab/firewall/policies.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network
from os.path import commonprefix

from lab.firewall import words
from lab.firewall.words import Chain, Dispatch, Networks, Rule, Ruleset, Served, Word, digest, networks
from lab.nftables import ESTABLISHED, INVALID, RELATED

TABLE, ARP_TABLE = "calico", "calico-arp"
LOOPBACK = {4: ("127.0.0.0", "127.0.0.1"), 6: ("::1",)}
TO_THE_HOST_ALWAYS = (130, 131, 132, 133, 135, 136)  # ICMPv6: multicast listeners, routers, neighbors
HOST_WAYS = ("from-host-endpoint", "to-host-endpoint", "from-hep-forward", "to-hep-forward")
DEFAULT_ALLOW = "projectcalico-default-allow"
INTO = {"ingress": "i", "egress": "o"}
OF_EGRESS_POLICIES = ("filter-cali-po-", "filter-cali-go-")
DISPATCHES = {"filter-cali-from-wl-dispatch": "filter-cali-fw-", "filter-cali-to-wl-dispatch": "filter-cali-tw-"}
EVERY_INTERFACE = "any-interface-at-all"  # of a host endpoint "*"


@dataclass(frozen=True)
class Marks:
    """Bits of the packet mark, and what is for what."""

    accept: int = 0x10000
    passed: int = 0x20000
    drop: int = 0x40000
    scratch0: int = 0x80000  # from a pod; every block of a rule's matches did
    scratch1: int = 0x100000  # one block of a rule's matches did


@dataclass(frozen=True)
class Dialect:
    """How a version of Calico words its rules."""

    version: tuple[int, int]

    @property
    def marks(self) -> Marks:
        """Before 3.30 there is no bit for what is to be dropped, and a Deny is one rule."""
        if self.version >= (3, 30):
            return Marks()
        return Marks(drop=0, scratch0=0x40000, scratch1=0x80000)

    @property
    def has_tiers(self) -> bool:
        """In its comments."""
        return self.version >= (3, 29)

    @property
    def says_where_policies_start(self) -> bool:
        """v3.28.5 does not: its policies come right after what clears the marks (seen running)."""
        return self.version[:2] != (3, 28)


@dataclass(frozen=True)
class TierOf:
    """A tier as it is about one endpoint in one direction: the jumps to its policies, those that are not staged."""

    name: str
    jumps: tuple[str, ...]  # chains of policies or of groups of them
    drops: bool  # what none of them takes


@dataclass(frozen=True)
class EndpointChains:
    """One pod's, or one host endpoint's, on the node."""

    interface: str  # of a host endpoint "*": EVERY_INTERFACE
    profiles: tuple[str, ...] = ()  # "kns.shop", "ksa.shop.default"
    ingress: tuple[TierOf, ...] = ()
    egress: tuple[TierOf, ...] = ()
    address: str = ""  # IPv4, of a pod
    forward_ingress: tuple[TierOf, ...] | None = None  # of a host endpoint; None: it has no policy on forwarded packets
    forward_egress: tuple[TierOf, ...] | None = None
    failsafe_in: tuple[str, ...] = ()  # of a host endpoint, what no policy closes: "22/tcp", "22/tcp 10.0.0.0/8"
    failsafe_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Node:
    """All that the table of one node and family depends on."""

    family: int
    version: tuple[int, int]
    own: tuple[str, ...] = ()  # addresses of the node
    peers: tuple[str, ...] = ()  # nodes whose VXLAN packets are taken
    tunnels: tuple[str, ...] = ()  # the tunnel devices that have an address
    vxlan: bool = True  # some pool uses it
    ipip: bool = False
    nodes: tuple[str, ...] = ()  # whose IPIP packets are taken: all, this one too
    vxlan_port: int = 4789
    pools: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()  # pools with natOutgoing
    prefixes: tuple[str, ...] = ("cali",)  # of pods' interfaces
    to_host: str = "ACCEPT"  # defaultEndpointToHostAction: ACCEPT, DROP, RETURN
    denies: str = "Drop"  # or Reject
    iptables: bool = False  # instead of nftables
    pods: tuple[EndpointChains, ...] = ()
    hosts: tuple[EndpointChains, ...] = ()
    policies: tuple[Chain, ...] = ()
    sets: tuple[Networks | Served, ...] = ()


def rendered(node: Node) -> Ruleset:
    """The table `ip calico` or `ip6 calico` of that node; in iptables mode all of its tables, with chains for maps."""
    chains = _Chains(node)
    return Ruleset(
        family=node.family,
        name=TABLE,
        sets=(*_sets(node), *node.sets),
        maps=() if node.iptables else tuple(Dispatch(name, chains.ways(name)) for name in DISPATCHES),
        chains=tuple(_hashed(chain) for chain in chains.all()),
    )


def rendered_arp(node: Node) -> Ruleset:
    """The table `arp calico-arp`: the node answers no pod's question about that pod's own address."""
    pods = [pod for pod in node.pods if pod.address]
    chains = [
        Chain("filter-OUTPUT", (jump("filter-cali-arp-dispatch"),), "output"),
        Chain("filter-cali-arp-dispatch", (_dispatch("oifname", "filter-cali-arp-dispatch"),)),
    ]
    for pod in pods:
        silent = Rule(tuple(words.arp_reply_of(pod.interface, pod.address)), words.decide("drop"))
        chains.append(Chain(f"filter-cali-arp-{pod.interface}", (silent,)))
    ways = tuple((pod.interface, f"filter-cali-arp-{pod.interface}") for pod in pods)
    maps = (Dispatch("filter-cali-arp-dispatch", ways),)
    return Ruleset(4, ARP_TABLE, (), maps, tuple(_hashed(chain) for chain in chains), arp=True)


def set_name(family: int, identity: str) -> str:
    """Felix's name of an IP set: "all-vxlan-net", or "s:..." of a selector."""
    return f"cali{family}0{identity.replace(':', '-')}"


# ---- words every chain uses


def jump(chain: str, *matches: Word, comment: str = "") -> Rule:
    return Rule(matches, words.decide("jump", chain), comment)


def verdict(name: str, *matches: Word, comment: str = "") -> Rule:
    return Rule(matches, words.decide(name), comment)


def _dispatch(word: str, name: str) -> Rule:
    return Rule((), words.dispatched(word, name), counts=False)


def _named(by: Callable[[str], Word], host: EndpointChains) -> tuple[Word, ...]:
    return () if host.interface == EVERY_INTERFACE else (by(host.interface),)


def _in_mangle(chain: Chain) -> Chain:
    """A policy's chain again, for the other layer: chains jump within their layer only."""
    return replace(chain, name=chain.name.replace("filter-", "mangle-", 1), rules=tuple(map(_moved, chain.rules)))


def _moved(rule: Rule) -> Rule:
    """In that layer nothing can be refused, only dropped."""
    action, _, to = rule.action.text.partition(" filter-")
    if rule.action.text == words.refuse().text:
        return replace(rule, action=words.decide("drop"))
    return replace(rule, action=words.decide(action, f"mangle-{to}")) if to else rule


def _failsafe(port: str, side: str) -> Rule:
    """side: where a network it is restricted to is."""
    served, _, network = port.partition(" ")
    number, _, protocol = served.partition("/")
    open_port = words.port(words.TCP if protocol == "tcp" else words.UDP, "destination", ((int(number),) * 2,))
    return verdict("accept", open_port, *([words.net(side, ip_network(network, strict=False))] if network else []))


def _hashed(chain: Chain) -> Chain:
    """Every rule's comment begins with a digest of all that came before it in its chain."""
    so_far, rules = chain.name, []
    for rule in chain.rules:
        so_far = digest(so_far + rule.text, 16)
        comment = f"cali:{so_far};" + (f" {rule.comment}" if rule.comment else "")
        rules.append(replace(rule, comment=comment[: words.LONGEST_COMMENT]))
    return replace(chain, rules=tuple(rules))


def _sets(node: Node) -> Iterable[Networks]:
    def named(identity: str, members: Sequence[str], *, single: bool = False) -> Networks:
        return Networks(set_name(node.family, identity), networks(node.family, members), single)

    yield named("this-host", [*LOOPBACK[node.family], *node.own], single=True)
    yield named("network-ip-pools", node.pools)
    yield named("masq-ipam-pools", node.masked)
    if node.vxlan:
        yield named("all-vxlan-net", node.peers)
    if node.ipip:
        yield named("all-hosts-net", node.nodes)
    yield named("dscp-src-net", ())


class _Chains:
    """Of one node."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.family = node.family
        self.marks = Dialect(node.version).marks
        self.deny = words.decide("drop") if node.denies == "Drop" else words.refuse()
        self.passing = self.marks.passed | self.marks.scratch0 | self.marks.scratch1
        self.accepted = words.marked(self.marks.accept, self.marks.accept)
        self.fresh = Rule((), words.clear_mark(self.marks.accept | self.passing))
        self.host_accepted = "Host endpoint policy accepted packet."

    def all(self) -> list[Chain]:
        found = [*self._base(), *self._raw(), *self._mangle(), *self._nat(), *self._filter(), *self._host_chains()]
        for pod in self.node.pods:
            found += [self._of_pod(pod, "egress"), self._of_pod(pod, "ingress")]
        for profile in sorted({name for one in (*self.node.pods, *self.node.hosts) for name in one.profiles}):
            found += [self._profile(profile, "ingress"), self._profile(profile, "egress")]
        for profile in sorted({name for host in self.node.hosts for name in host.profiles}):
            found.append(self._profile(profile, "egress", "mangle"))
        return [*found, *self.node.policies]

    def _set(self, identity: str) -> str:
        return set_name(self.family, identity)

    # ---- hooks

    def _base(self) -> list[Chain]:
        def into(layer: str, hook: str) -> tuple[Rule, ...]:
            return (jump(f"{layer}-cali-{hook.upper()}"),)

        forward = (
            jump("filter-cali-FORWARD"),
            verdict("accept", self.accepted, comment="Policy explicitly accepted packet."),
            Rule((), words.set_mark(self.marks.accept)),
        )
        return [
            Chain("filter-FORWARD", forward, "forward"),
            Chain("filter-INPUT", into("filter", "input"), "input"),
            Chain("filter-OUTPUT", into("filter", "output"), "output"),
            Chain("raw-PREROUTING", into("raw", "prerouting"), "prerouting", priority=-300),
            Chain("raw-OUTPUT", into("raw", "output"), "output", priority=-300),
            Chain("mangle-PREROUTING", into("mangle", "prerouting"), "prerouting", priority=-150),
            Chain("mangle-INPUT", (), "input", priority=-150),
            Chain("mangle-FORWARD", (), "forward", priority=-150),
            Chain("mangle-OUTPUT", (), "output", "route", -150),
            Chain("mangle-POSTROUTING", into("mangle", "postrouting"), "postrouting", priority=-150),
            Chain("nat-PREROUTING", into("nat", "prerouting"), "prerouting", "nat", -100),
            Chain("nat-INPUT", (), "input", "nat", -100),
            Chain("nat-OUTPUT", into("nat", "output"), "output", "nat", 110),
            Chain("nat-POSTROUTING", into("nat", "postrouting"), "postrouting", "nat", 110),
        ]

    def _vxlan(self) -> Word:
        port = self.node.vxlan_port
        return words.port(words.UDP, "destination", ((port, port),))

    def _raw(self) -> list[Chain]:
        from_pod = words.marked(self.marks.scratch0, self.marks.scratch0)
        not_from_pod = words.marked(self.marks.scratch0, 0)
        vxlan = words.udp_port(self.node.vxlan_port)
        untracked = [Rule((vxlan,), words.untracked())] if self.node.vxlan else []
        prerouting = [
            self.fresh,
            *untracked,
            *(
                Rule((words.came_by(f"{prefix}*"),), words.set_mark(self.marks.scratch0))
                for prefix in self.node.prefixes
            ),
            jump("raw-cali-rpf-skip", from_pod),
            verdict("drop", from_pod, words.no_way_back()),
            jump("raw-cali-from-host-endpoint", not_from_pod),
            verdict("accept", self.accepted),
        ]
        output = [self.fresh, jump("raw-cali-to-host-endpoint"), *untracked, verdict("accept", self.accepted)]
        return [
            Chain("raw-cali-PREROUTING", tuple(prerouting)),
            Chain("raw-cali-OUTPUT", tuple(output)),
            Chain("raw-cali-rpf-skip"),
            Chain("raw-cali-from-host-endpoint"),
            Chain("raw-cali-to-host-endpoint"),
        ]

    def _mangle(self) -> list[Chain]:
        abroad = (
            words.in_set(self.family, "source", self._set("dscp-src-net")),
            words.in_set(self.family, "destination", self._set("network-ip-pools"), inside=False),
            words.in_set(self.family, "destination", self._set("this-host"), inside=False),
        )
        prerouting = (
            verdict("accept", words.tracked(ESTABLISHED, RELATED)),
            verdict("accept", self.accepted),
            jump("mangle-cali-from-host-endpoint"),
            verdict("accept", self.accepted, comment=self.host_accepted),
        )
        postrouting = (
            jump("mangle-cali-egress-dscp", *abroad, comment="set dscp for traffic leaving cluster."),
            verdict("return", self.accepted),
            self.fresh,
            jump("mangle-cali-to-host-endpoint", words.translated(yes=True)),
            verdict("return", self.accepted, comment=self.host_accepted),
        )
        return [
            Chain("mangle-cali-PREROUTING", prerouting),
            Chain("mangle-cali-POSTROUTING", postrouting),
            Chain("mangle-cali-from-host-endpoint"),
            Chain("mangle-cali-egress-dscp"),
            *self._translated_on_the_way_out(),
        ]

    def _translated_on_the_way_out(self) -> list[Chain]:
        """What the node itself sends to a Service meets the policies about the host here, once it has the endpoint's
        address.
        """
        reached, found = [], []
        known = words.tracked(ESTABLISHED, RELATED)
        for host in self._hosts():
            everywhere = host.interface == EVERY_INTERFACE
            if everywhere:
                reached += [
                    verdict(
                        "return",
                        words.leaves_by(f"{one}*"),
                        comment="Skip egress WHEP policy for traffic to local workload",
                    )
                    for one in self.node.prefixes
                ]
            name = f"mangle-cali-th-{host.interface}"
            reached.append(Rule(_named(words.leaves_by, host), words.decide("goto", name)))
            rules = (
                Rule((known,), words.set_mark(self.marks.accept)),
                verdict("return", known),
                verdict("drop", words.tracked(INVALID)),
                jump("mangle-cali-failsafe-out"),
                self._undecided(),
                *self._tiers(host.egress, "mangle"),
                *self._profiles(host, "egress", "mangle"),
            )
            found.append(Chain(name, tuple(map(_moved, rules))))
        if found:
            found.append(self._failsafe_chain("mangle", "out"))
            found += [_in_mangle(chain) for chain in self.node.policies if chain.name.startswith(OF_EGRESS_POLICIES)]
        return [Chain("mangle-cali-to-host-endpoint", tuple(reached)), *found]

    def _nat(self) -> list[Chain]:
        outgoing = Rule(
            (
                words.in_set(self.family, "source", self._set("masq-ipam-pools")),
                words.in_set(self.family, "destination", self._set("network-ip-pools"), inside=False),
            ),
            words.masqueraded(),
        )
        postrouting = [jump("nat-cali-fip-snat"), jump("nat-cali-nat-outgoing")]
        for tunnel in self.node.tunnels:
            own = (
                words.leaves_by(tunnel),
                words.node_has("source", leaving=True, yes=False),
                words.node_has("source"),
            )
            postrouting.append(Rule(own, words.masqueraded()))
        return [
            Chain("nat-cali-PREROUTING", (jump("nat-cali-fip-dnat"),)),
            Chain("nat-cali-OUTPUT", (jump("nat-cali-fip-dnat"),)),
            Chain("nat-cali-POSTROUTING", tuple(postrouting)),
            Chain("nat-cali-nat-outgoing", (outgoing,) if self.node.masked else ()),
            Chain("nat-cali-fip-dnat"),
            Chain("nat-cali-fip-snat"),
        ]

    def _filter(self) -> list[Chain]:
        node, family = self.node, self.family
        pods = [f"{prefix}*" for prefix in node.prefixes]
        inward: list[Rule] = []
        outward: list[Rule] = []
        to_node = words.node_has("destination")
        if node.ipip:
            of_nodes, ipip = self._set("all-hosts-net"), words.protocol(words.IPIP)
            inward = [
                verdict(
                    "accept",
                    ipip,
                    words.in_set(family, "source", of_nodes),
                    to_node,
                    comment="Allow IPIP packets from Calico hosts",
                ),
                Rule((ipip,), self.deny, "Drop IPIP packets from non-Calico hosts"),
            ]
            outward = [
                verdict(
                    "accept",
                    ipip,
                    words.in_set(family, "destination", of_nodes),
                    words.node_has("source"),
                    comment="Allow IPIP packets to other Calico hosts",
                )
            ]
        if node.vxlan:
            allowed = self._set("all-vxlan-net")
            inward += [
                verdict(
                    "accept",
                    self._vxlan(),
                    words.in_set(family, "source", allowed),
                    to_node,
                    comment=f"Allow IPv{family} VXLAN packets from allowed hosts",
                ),
                Rule((self._vxlan(), to_node), self.deny, f"Drop IPv{family} VXLAN packets from non-allowed hosts"),
            ]
            to_peer = words.in_set(family, "destination", allowed)
            outward += [
                verdict(
                    "accept",
                    self._vxlan(),
                    words.node_has("source"),
                    to_peer,
                    comment=f"Allow IPv{family} VXLAN packets to other allowed hosts",
                )
            ]
        host = verdict("accept", self.accepted, comment=self.host_accepted)
        incoming = (
            *inward,
            *(Rule((words.came_by(pod),), words.decide("goto", "filter-cali-wl-to-host")) for pod in pods),
            verdict("accept", self.accepted),
            self.fresh,
            jump("filter-cali-from-host-endpoint"),
            host,
        )
        forward = (
            Rule((), words.clear_mark(self.passing)),
            jump("filter-cali-from-hep-forward", words.marked(self.marks.accept, 0)),
            *(jump("filter-cali-from-wl-dispatch", words.came_by(pod)) for pod in pods),
            *(jump("filter-cali-to-wl-dispatch", words.leaves_by(pod)) for pod in pods),
            jump("filter-cali-to-hep-forward"),
            jump("filter-cali-cidr-block"),
        )
        outgoing = (
            verdict("accept", self.accepted),
            *(verdict("return", words.leaves_by(pod)) for pod in pods),
            *outward,
            self.fresh,
            jump("filter-cali-to-host-endpoint", words.translated(yes=False)),
            host,
        )
        to_host = [jump("filter-cali-from-wl-dispatch")]
        if family == 6:
            to_host = [verdict("accept", words.icmp(6, kind)) for kind in TO_THE_HOST_ALWAYS] + to_host
        if node.to_host != "RETURN":
            action = words.decide("accept") if node.to_host == "ACCEPT" else self.deny
            to_host.append(Rule((), action, "Configured DefaultEndpointToHostAction"))
        return [
            Chain("filter-cali-INPUT", incoming),
            Chain("filter-cali-FORWARD", forward),
            Chain("filter-cali-OUTPUT", outgoing),
            Chain("filter-cali-wl-to-host", tuple(to_host)),
            *self._dispatched("filter-cali-from-wl-dispatch"),
            *self._dispatched("filter-cali-to-wl-dispatch"),
            Chain("filter-cali-cidr-block"),
        ]

    def ways(self, dispatch: str) -> tuple[tuple[str, str], ...]:
        """From interfaces of pods to their chains."""
        return tuple((pod.interface, DISPATCHES[dispatch] + pod.interface) for pod in self.node.pods)

    def _dispatched(self, name: str) -> list[Chain]:
        unknown = Rule((), self.deny, "Unknown interface")
        incoming = name == "filter-cali-from-wl-dispatch"
        if not self.node.iptables:
            return [Chain(name, (_dispatch("iifname" if incoming else "oifname", name), unknown))]
        by = words.came_by if incoming else words.leaves_by
        ways = dict(sorted(self.ways(name)))
        known = commonprefix(list(ways))  # noqa: RUF071 - of names
        begins: dict[str, list[str]] = {}
        for interface in ways:
            begins.setdefault(interface[: len(known) + 1], []).append(interface)
        found: list[Chain] = []
        first: list[Rule] = []
        for begin, interfaces in begins.items():
            rules = [Rule((by(one),), words.decide("goto", ways[one])) for one in interfaces]
            if len(rules) > 1:  # which of many pods it is is found in two steps
                branch = f"{name}-{begin[len(known) :]}"
                found.append(Chain(branch, (*rules, unknown)))
                rules = [Rule((by(f"{begin}*"),), words.decide("goto", branch))]
            first += rules
        return [Chain(name, (*first, unknown)), *found]

    # ---- endpoints

    def _of_pod(self, pod: EndpointChains, direction: str) -> Chain:
        egress = direction == "egress"
        rules = self._known()
        if egress:
            rules += [
                Rule((self._vxlan(),), self.deny, "Drop VXLAN encapped packets originating in workloads"),
                Rule((words.protocol(words.IPIP),), self.deny, "Drop IPinIP encapped packets originating in workloads"),
            ]
        rules += self._tiers(pod.egress if egress else pod.ingress)
        rules += self._profiles(pod, direction)
        return Chain(f"filter-cali-{'f' if egress else 't'}w-{pod.interface}", tuple(rules))

    def _profiles(self, endpoint: EndpointChains, direction: str, layer: str = "filter") -> list[Rule]:
        """What no policy took."""
        rules = []
        for profile in endpoint.profiles:
            rules.append(jump(f"{layer}-cali-pr{INTO[direction]}-{profile}"))
            rules.append(verdict("return", self.accepted, comment="Return if profile accepted"))
        return [*rules, Rule((), self.deny, "Drop if no profiles matched")]

    def _known(self) -> list[Rule]:
        return [
            verdict("accept", words.tracked(ESTABLISHED, RELATED)),
            Rule((words.tracked(INVALID),), self.deny),
            self._undecided(),
        ]

    def _undecided(self) -> Rule:
        return Rule((), words.clear_mark(self.marks.accept | self.marks.passed))

    def _tiers(self, tiers: tuple[TierOf, ...], layer: str = "filter") -> list[Rule]:
        rules = []
        not_passed = words.marked(self.marks.passed, 0)
        for tier in tiers:
            named = f"Start of tier {tier.name}" if Dialect(self.node.version).has_tiers else "Start of policies"
            if Dialect(self.node.version).says_where_policies_start:
                rules.append(Rule((), words.clear_mark(self.marks.passed), named))
            for chain in tier.jumps:
                rules.append(jump(f"{layer}-{chain}", not_passed))
                rules.append(verdict("return", self.accepted, comment="Return if policy accepted"))
            if tier.jumps and tier.drops:
                end = "Drop if no policies passed packet"
                if Dialect(self.node.version).has_tiers:
                    end = f"End of tier {tier.name}. {end}"
                rules.append(Rule((not_passed,), self.deny, end))
        return rules

    def _profile(self, name: str, direction: str, layer: str = "filter") -> Chain:
        """Those of namespaces, and Calico's own for hosts, allow everything; those of service accounts say nothing."""
        title = f"Profile {name} {direction}"
        if name.startswith("kns.") or name == DEFAULT_ALLOW:
            rule = Rule((), words.set_mark(self.marks.accept), title)
        else:
            rule = Rule((), words.decide("continue"), title, counts=False)
        return Chain(f"{layer}-cali-pr{INTO[direction]}-{name}", (rule,))

    # ---- host endpoints

    def _host_chains(self) -> list[Chain]:
        """Of the filter layer. Those of raw and mangle stay empty: for policies without tracking and before DNAT."""
        found: list[Chain] = []
        reached: dict[str, list[Rule]] = {way: [] for way in HOST_WAYS}
        for host in self._hosts():
            came, leaves = _named(words.came_by, host), _named(words.leaves_by, host)
            for way, chain, matches in (
                ("from-host-endpoint", "fh", came),
                ("to-host-endpoint", "th", leaves),
                ("from-hep-forward", "fhfw", came),
                ("to-hep-forward", "thfw", leaves),
            ):
                into = words.decide("goto", f"filter-cali-{chain}-{host.interface}")
                reached[way].append(Rule(matches, into))
            found += [
                self._of_host(host, "fh", "failsafe-in", host.ingress),
                self._of_host(host, "th", "failsafe-out", host.egress),
                self._forwarded(host, "fhfw", host.forward_ingress),
                self._forwarded(host, "thfw", host.forward_egress),
            ]
        if self.node.hosts:
            found += [self._failsafe_chain("filter", way) for way in ("in", "out")]
        return [*(Chain(f"filter-cali-{way}", tuple(rules)) for way, rules in reached.items()), *found]

    def _hosts(self) -> list[EndpointChains]:
        """The one of every interface comes last."""
        return sorted(self.node.hosts, key=lambda host: (host.interface == EVERY_INTERFACE, host.interface))

    def _failsafe_chain(self, layer: str, way: str) -> Chain:
        """The settings of a node are those of all its host endpoints."""
        host = self.node.hosts[0]
        ports, side = (host.failsafe_in, "source") if way == "in" else (host.failsafe_out, "destination")
        return Chain(f"{layer}-cali-failsafe-{way}", tuple(_failsafe(one, side) for one in ports))

    def _of_host(self, host: EndpointChains, kind: str, failsafe: str, tiers: tuple[TierOf, ...]) -> Chain:
        established, invalid, undecided = self._known()
        rules = [established, invalid, jump(f"filter-cali-{failsafe}"), undecided, *self._tiers(tiers)]
        rules += self._profiles(host, "ingress" if failsafe == "failsafe-in" else "egress")
        return Chain(f"filter-cali-{kind}-{host.interface}", tuple(rules))

    def _forwarded(self, host: EndpointChains, kind: str, tiers: tuple[TierOf, ...] | None) -> Chain:
        rules = self._known()
        if tiers is None:
            rules += [
                Rule((), words.set_mark(self.marks.accept), "Allow forwarded traffic by default"),
                verdict("return", comment="Return for accepted forward traffic"),
            ]
        else:
            rules += self._tiers(tiers)
        return Chain(f"filter-cali-{kind}-{host.interface}", tuple(rules))
