"""What Felix makes of policies: chains for their rules, sets for whom they mean; without it a policy in the lab's API
would be words.

Shapes of a running Calico v3.32.1 (calico_truth_2.md 3): a rule sets a bit of the mark, the next one acts on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from itertools import groupby

from facts import LabelledEndpoint, NetworkSet, Policy, PolicyPeer, PolicyRule, Tier, selector
from lab.firewall import words
from lab.firewall.chains import EVERY_INTERFACE, INTO, Dialect, EndpointChains, TierOf, jump, set_name
from lab.firewall.words import Chain, Networks, Rule, Served, Word, digest, networks
from lab.nftables import Network

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132, "udplite": 136}
LAYER = "filter-"
GROUP_STRIDE = 5  # of so many policies in a group only the first is asked without looking whether it is decided
LOG_PREFIX = "calico-packet: "
SERVICE_ACCOUNT = "projectcalico.org/serviceaccount"
SHORT_KINDS = {
    "KubernetesNetworkPolicy": "knp",
    "NetworkPolicy": "np",
    "GlobalNetworkPolicy": "gnp",
    "KubernetesClusterNetworkPolicy": "kcnp",
}
Member = LabelledEndpoint | NetworkSet


@dataclass(frozen=True)
class Policies:
    """Everything in the API that decides who may talk to whom."""

    tiers: tuple[Tier, ...] = ()
    policies: tuple[Policy, ...] = ()
    endpoints: tuple[LabelledEndpoint, ...] = ()  # of the whole cluster
    network_sets: tuple[NetworkSet, ...] = ()


@dataclass
class Programmed:
    """What policies add to one node's table of one family."""

    pods: dict[str, EndpointChains] = field(default_factory=dict)  # by the pod's name
    hosts: list[EndpointChains] = field(default_factory=list)
    chains: list[Chain] = field(default_factory=list)
    sets: list[Networks | Served] = field(default_factory=list)


def programmed(
    known: Policies, node: str, family: int, version: tuple[int, int], denies: str = "Drop", *, iptables: bool = False
) -> Programmed:
    """For the endpoints on that node. `pods` have neither interface nor profiles yet."""
    return _Renderer(known, family, version, denies, words.MOST_PORTS if iptables else 0).of_node(node)


def identity(policy: Policy, version: tuple[int, int]) -> str:
    """What Felix of that version calls a policy in the names of chains (calico.md 4.2)."""
    if version >= (3, 32):
        where = f"{policy.namespace}/" if policy.namespace else ""
        return f"{SHORT_KINDS[policy.kind]}/{where}{policy.name}"
    name = f"{policy.namespace}/{_old_name(policy)}" if policy.namespace else _old_name(policy)
    return f"{policy.tier}/{name}" if version >= (3, 29) else name


def title(policy: Policy, direction: str, version: tuple[int, int]) -> str:
    """The comment of a policy's first rule."""
    if version >= (3, 32):
        where = f"{policy.namespace}/" if policy.namespace else ""
        return f"{policy.kind} {where}{policy.name} {direction}"
    name = f"{policy.namespace}/{_old_name(policy)}" if policy.namespace else _old_name(policy)
    return f"Policy {name} {direction}"


def _old_name(policy: Policy) -> str:
    """Before 3.32 the tier, or what kind of object it was made from, is a part of the name."""
    if policy.kind == "KubernetesNetworkPolicy":
        return f"knp.default.{policy.name}"
    return policy.name if policy.name.startswith(f"{policy.tier}.") else f"{policy.tier}.{policy.name}"


class _Renderer:
    """Of one node and family."""

    def __init__(
        self, known: Policies, family: int, version: tuple[int, int], denies: str, most_ports: int = 0
    ) -> None:
        """most_ports: of one match, a range is two; 0: any number."""
        self.most_ports = most_ports
        self.known = known
        self.family = family
        self.version = version
        self.marks = Dialect(version).marks
        self.deny = words.decide("drop") if denies == "Drop" else words.refuse()
        self.made: dict[str, Chain] = {}
        self.sets: dict[str, Networks | Served] = {}
        self.in_order = [(tier, self._policies_of(tier)) for tier in _tiers(known.tiers)]

    def of_node(self, node: str) -> Programmed:
        done = Programmed()
        for endpoint in self.known.endpoints:
            if endpoint.node != node:
                continue
            if endpoint.kind == "pod":
                done.pods[endpoint.name] = EndpointChains(
                    endpoint.interface,
                    ingress=self._about(endpoint, "ingress"),
                    egress=self._about(endpoint, "egress"),
                )
            else:
                done.hosts.append(self._host(endpoint))
        done.chains = list(self.made.values())
        done.sets = list(self.sets.values())
        return done

    def _host(self, endpoint: LabelledEndpoint) -> EndpointChains:
        forward = {way: self._about(endpoint, way, forwarded=True) for way in INTO}
        concerned = any(forward.values())
        return EndpointChains(
            EVERY_INTERFACE if endpoint.interface == "*" else endpoint.interface,
            endpoint.profiles,
            ingress=self._about(endpoint, "ingress"),
            egress=self._about(endpoint, "egress"),
            forward_ingress=forward["ingress"] if concerned else None,
            forward_egress=forward["egress"] if concerned else None,
            failsafe_in=endpoint.failsafe_in,
            failsafe_out=endpoint.failsafe_out,
        )

    # ---- tiers

    def _policies_of(self, tier: Tier) -> list[Policy]:
        """Untracked ones and those before DNAT are for other hooks, which the lab leaves empty."""
        mine = [
            one for one in self.known.policies if one.tier == tier.name and not one.do_not_track and not one.pre_dnat
        ]
        return sorted(mine, key=self._place)

    def _place(self, policy: Policy) -> tuple[float, str]:
        order = _number(policy.order)
        if self.version >= (3, 32):
            return order, f"{policy.name}/{policy.namespace}/{policy.kind}"
        return order, f"{policy.namespace}/{_old_name(policy)}" if policy.namespace else _old_name(policy)

    def _about(self, endpoint: LabelledEndpoint, direction: str, *, forwarded: bool = False) -> tuple[TierOf, ...]:
        wanted = direction.capitalize()
        found = []
        for tier, policies in self.in_order:
            mine = [
                one
                for one in policies
                if wanted in (one.types or (wanted,))
                and (one.apply_on_forward or not forwarded)
                and _selects(one, endpoint)
            ]
            if mine:
                found.append(TierOf(tier.name, self._jumps(mine, direction), tier.default_action != "Pass"))
        return tuple(found)

    def _jumps(self, policies: Sequence[Policy], direction: str) -> tuple[str, ...]:
        """Neighbors about the same endpoints make a group, which has a chain of its own."""
        chains = []
        for _, group in groupby(policies, key=lambda one: (one.namespace, one.selector, one.namespace_selector)):
            programmed = [one for one in group if not one.staged]
            for policy in programmed:
                self._policy(policy, direction)
            if len(programmed) == 1:
                chains.append(self._chain_name(programmed[0], direction))
            elif programmed:
                chains.append(self._group(programmed, direction))
        return tuple(chains)

    def _group(self, policies: Sequence[Policy], direction: str) -> str:
        members = [self._chain_name(one, direction) for one in policies]
        name = f"cali-g{INTO[direction]}-{digest(' '.join(members), 20)}"
        decided = self.marks.accept | self.marks.passed
        rules = []
        for number, member in enumerate(members):
            first = number % GROUP_STRIDE == 0
            if first and number:
                rules.append(Rule((_any_bit(decided),), words.decide("return"), "Return on verdict"))
            rules.append(jump(LAYER + member, *(() if first else (words.marked(decided, 0),))))
        self.made[name] = Chain(LAYER + name, tuple(rules))
        return name

    def _chain_name(self, policy: Policy, direction: str) -> str:
        return f"cali-p{INTO[direction]}-{identity(policy, self.version)}"

    # ---- one policy

    def _policy(self, policy: Policy, direction: str) -> None:
        name = self._chain_name(policy, direction)
        if name in self.made:
            return
        rules = [
            made
            for rule in (policy.ingress if direction == "ingress" else policy.egress)
            for made in self._rule(rule, policy.namespace)
        ]
        while rules and rules[-1].action.text == "return":
            rules.pop()
        if not rules:
            rules = [Rule((), words.decide("continue"), counts=False)]
        first = rules[0]
        comment = " ".join(filter(None, (first.comment, title(policy, direction, self.version))))
        rules[0] = Rule(first.matches, first.action, comment, first.counts)
        self.made[name] = Chain(LAYER + name, tuple(rules))

    def _rule(self, rule: PolicyRule, namespace: str) -> Iterator[Rule]:
        """Every rule of nft that one rule of a policy takes."""
        matches = _Matches(self, rule, namespace)
        if not matches.possible:
            return
        comment = f"name={rule.name}" if rule.name else ""
        yield from (Rule(one.matches, one.action, comment, one.counts) for one in matches.before)
        whole = tuple(matches.whole)
        bit = {"Allow": self.marks.accept, "Pass": self.marks.passed, "Deny": self.marks.drop}.get(rule.action, 0)
        if rule.action == "Log":
            yield Rule(whole, words.logged(LOG_PREFIX), comment)
        elif not bit:
            yield Rule(whole, self.deny, comment)
        else:
            yield Rule(whole, words.set_mark(bit), comment)
            act = self.deny if rule.action == "Deny" else words.decide("return")
            yield Rule((words.marked(bit, bit),), act, comment)

    # ---- sets

    def members(self, peer: PolicyPeer, namespace: str) -> str:
        """Name of the set of whom a peer selects."""
        accounts = f"{peer.service_account_names}|{peer.service_account_selector}"
        what = f"{namespace}|{peer.selector}|{peer.namespace_selector}|{accounts}"
        chosen = [one for one in self._everybody() if _selected(peer, namespace, one)]
        return self._addresses(what, chosen)

    def unwanted(self, peer: PolicyPeer, namespace: str) -> str:
        """Name of the set of whom `not_selector` selects."""
        chosen = [one for one in self._everybody() if selector.matches(peer.not_selector, labels(one))]
        return self._addresses(f"not {namespace}|{peer.not_selector}", chosen)

    def _addresses(self, what: str, chosen: Iterable[Member]) -> str:
        name = set_name(self.family, f"s:{digest(what, 23)}")
        if name not in self.sets:
            nets = [net for one in chosen for net in (one.nets if isinstance(one, NetworkSet) else one.addresses)]
            self.sets[name] = Networks(name, networks(self.family, nets))
        return name

    def named_port(self, port: str, protocol: int, peer: PolicyPeer, namespace: str) -> str:
        """Name of the set of the endpoints that have such a port, each with its number."""
        what = f"{port}|{protocol}|{namespace}|{peer.selector}|{peer.namespace_selector}"
        name = set_name(self.family, f"n:{digest(what, 23)}")
        if name not in self.sets:
            chosen = [
                one
                for one in self.known.endpoints
                if not peer_selects(peer, namespace) or _selected(peer, namespace, one)
            ]
            members = {
                (address, protocol, number)
                for one in chosen
                for called, of, number in one.ports
                if called == port and PROTOCOLS[of.lower()] == protocol
                for address in one.addresses
                if ip_network(address).version == self.family
            }
            self.sets[name] = Served(name, tuple(sorted(members)))
        return name

    def endpoints_of(self, service: str, members: Sequence[str]) -> str:
        """Name of the set of a Service's endpoints with their ports."""
        name = set_name(self.family, f"svc:{digest(service, 21)}")
        self.sets[name] = Served(name, tuple(sorted(self._served(members))))
        return name

    def _served(self, members: Sequence[str]) -> Iterator[tuple[str, int, int]]:
        for one in members:
            address, _, port = one.partition(" ")
            number, _, protocol = port.partition("/")
            if port and ip_network(address).version == self.family:
                yield address, PROTOCOLS[protocol.lower()], int(number)

    def _everybody(self) -> Iterator[Member]:
        yield from self.known.endpoints
        yield from self.known.network_sets


Alternatives = list[Word]  # one of them must match


class _Matches:
    """What nft has to match for one rule of a policy.

    nft compares one thing at a time. Where one of several would do (networks, ports), rules before it leave in a bit of
    the mark whether all these blocks matched so far: `before`, and `whole` then asks for that bit.
    """

    def __init__(self, renderer: _Renderer, rule: PolicyRule, namespace: str) -> None:
        self.renderer = renderer
        self.family = renderer.family
        self.protocol = _protocol(rule.protocol)
        self.whole: list[Word] = []
        self.before: list[Rule] = []
        self.possible = rule.ip_version in (0, self.family)
        self._positive: list[Alternatives] = []
        self._negative: list[Alternatives] = []
        for side, peer in (("source", rule.source), ("destination", rule.destination)):
            self._peer(side, peer, namespace)
        for side, peer in (("source", rule.source), ("destination", rule.destination)):
            self._ports(side, peer, namespace)
        if self.protocol is not None and not any(rule_has_ports(peer) for peer in (rule.source, rule.destination)):
            if not self._icmp(rule):
                self.whole.insert(0, words.protocol(self.protocol))
        elif self.protocol is None:
            self._icmp(rule)
        if rule.not_protocol and (number := _protocol(rule.not_protocol)) is not None:
            self.whole.append(words.protocol(number, equal=False))
        self._blocks()

    def _icmp(self, rule: PolicyRule) -> bool:
        """True when an ICMP match says the protocol, too."""
        if rule.icmp_type >= 0:
            self.whole.append(words.icmp(self.family, rule.icmp_type, rule.icmp_code))
        if rule.not_icmp_type >= 0:
            self.whole.append(words.icmp(self.family, rule.not_icmp_type, rule.not_icmp_code, equal=False))
        return rule.icmp_type >= 0 or rule.not_icmp_type >= 0

    def _peer(self, side: str, peer: PolicyPeer, namespace: str) -> None:
        wanted, unwanted = self._of_family(peer.nets), self._of_family(peer.not_nets)
        if len(wanted) == 1:
            self.whole.append(words.net(side, wanted[0]))
        elif wanted:
            self._positive.append([words.net(side, one) for one in wanted])
        if len(unwanted) == 1 and not wanted:
            self.whole.append(words.net(side, unwanted[0], inside=False))
        elif unwanted:
            self._negative.append([words.net(side, one) for one in unwanted])
        if peer_selects(peer, namespace) and not _by_name_alone(peer, self.protocol):
            self.whole.append(words.in_set(self.family, side, self.renderer.members(peer, namespace)))
        if peer.not_selector:
            name = self.renderer.unwanted(peer, namespace)
            self.whole.append(words.in_set(self.family, side, name, inside=False))
        if peer.service:
            self.whole += self._service(side, peer)

    def _of_family(self, nets: Sequence[str]) -> list[Network]:
        """A rule whose networks are all of the other family is none for this one."""
        found = [ip_network(net, strict=False) for net in nets]
        mine = [net for net in found if net.version == self.family]
        self.possible = self.possible and (bool(mine) or not nets)
        return mine

    def _service(self, side: str, peer: PolicyPeer) -> list[Word]:
        if side == "source" or self.protocol is None:
            name = self.renderer._addresses(
                f"service {peer.service}",
                [NetworkSet(name=peer.service, nets=tuple({one.partition(" ")[0] for one in peer.service_endpoints}))],
            )
            return [words.in_set(self.family, side, name)]
        name = self.renderer.endpoints_of(peer.service, peer.service_endpoints)
        return [words.served_in_set(self.family, side, self.protocol, name)]

    def _ports(self, side: str, peer: PolicyPeer, namespace: str) -> None:
        for listed, wanted in ((peer.ports, True), (peer.not_ports, False)):
            if not listed:
                continue
            if self.protocol not in words.WITH_PORTS:
                self.possible = False
                return
            choice = self._ports_of(side, peer, namespace, listed, inside=wanted)
            if wanted and len(choice) > 1:
                self._positive.append(choice)
            else:
                self.whole += choice

    def _ports_of(
        self, side: str, peer: PolicyPeer, namespace: str, listed: Sequence[str], *, inside: bool
    ) -> Alternatives:
        assert self.protocol is not None
        numbers = tuple(sorted({span for one in listed if (span := _span(one))}))
        named = [one for one in listed if not _span(one)]
        choice: Alternatives = []
        for some in _packs(_apart(numbers), self.renderer.most_ports):
            choice.append(words.port(self.protocol, side, some, equal=inside))
        for one in named:
            name = self.renderer.named_port(one, self.protocol, peer, namespace)
            choice.append(words.served_in_set(self.family, side, self.protocol, name, inside=inside))
        return choice

    def _blocks(self) -> None:
        """As Felix: the blocks in which one must match, then those in which none may."""
        if not self._positive and not self._negative:
            return
        marks = self.renderer.marks
        both = marks.scratch0 | marks.scratch1
        preset = 0 if self._positive else marks.scratch0
        self.before.append(Rule((), words.clear_mark(both, preset)))
        for number, block in enumerate(self._positive):
            bit = marks.scratch1 if number else marks.scratch0
            if number:
                self.before.append(Rule((), words.clear_mark(marks.scratch1)))
            self.before += [Rule((word,), words.set_mark(bit)) for word in block]
            if number:
                self.before.append(Rule((words.marked(marks.scratch1, 0),), words.clear_mark(marks.scratch0)))
        for block in self._negative:
            self.before += [Rule((word,), words.clear_mark(marks.scratch0)) for word in block]
        self.whole.append(words.marked(marks.scratch0, marks.scratch0))


# ---- whom a selector means


def labels(one: Member) -> dict[str, str]:
    return dict(one.labels)


def peer_selects(peer: PolicyPeer, namespace: str) -> bool:
    """Does it mean endpoints at all? As soon as it does, a namespaced policy means its own namespace only."""
    return bool(
        peer.selector
        or peer.namespace_selector
        or peer.service_account_names
        or peer.service_account_selector
        or (namespace and peer.not_selector)
    )


def rule_has_ports(peer: PolicyPeer) -> bool:
    return bool(peer.ports or peer.not_ports)


def _by_name_alone(peer: PolicyPeer, protocol: int | None) -> bool:
    """The members of a named port's set are selected already."""
    return protocol is not None and len(peer.ports) == 1 and not _span(peer.ports[0])


def _selects(policy: Policy, endpoint: LabelledEndpoint) -> bool:
    if policy.namespace and policy.namespace != endpoint.namespace:
        return False
    return (
        selector.matches(policy.selector, labels(endpoint))
        and _namespace_selected(policy.namespace_selector, endpoint)
        and _account_selected(policy.service_account_selector, endpoint)
    )


def _selected(peer: PolicyPeer, namespace: str, one: Member) -> bool:
    if peer.namespace_selector:
        if not _namespace_selected(peer.namespace_selector, one):
            return False
    elif namespace and one.namespace != namespace:
        return False
    if peer.service_account_names and labels(one).get(SERVICE_ACCOUNT) not in peer.service_account_names:
        return False
    return selector.matches(peer.selector, labels(one)) and _account_selected(peer.service_account_selector, one)


def _namespace_selected(text: str, one: Member) -> bool:
    if not text:
        return True
    if text.strip() == "global()":
        return not one.namespace
    return bool(one.namespace) and selector.matches(text, dict(one.namespace_labels))


def _account_selected(text: str, one: Member) -> bool:
    if not text:
        return True
    if not isinstance(one, LabelledEndpoint) or not one.service_account:
        return False
    return selector.matches(text, dict(one.service_account_labels))


# ---- what Felix can read


def readable(policy: Policy) -> bool:
    """Felix does not program a policy with a selector, network, protocol or port it does not understand."""
    rules = (*policy.ingress, *policy.egress)
    peers = [peer for rule in rules for peer in (rule.source, rule.destination)]
    selectors = [policy.selector, policy.namespace_selector, policy.service_account_selector]
    for peer in peers:
        selectors += [peer.selector, peer.not_selector, peer.namespace_selector, peer.service_account_selector]
    try:
        for text in selectors:
            selector.parse(text)
        for net in (net for peer in peers for net in (*peer.nets, *peer.not_nets)):
            ip_network(net, strict=False)
        for rule in rules:
            _protocol(rule.protocol), _protocol(rule.not_protocol)
        return all(
            span is None or 0 <= span[0] <= span[1] <= 65535
            for peer in peers
            for port in (*peer.ports, *peer.not_ports)
            for span in (_span(port),)
        )
    except (ValueError, KeyError):
        return False


# ---- small words


def _tiers(known: Sequence[Tier]) -> list[Tier]:
    found = list(known)
    if all(one.name != "default" for one in found):
        found.append(Tier(name="default", order="1000000"))
    return sorted(found, key=lambda tier: (_number(tier.order), tier.name))


def _number(order: str) -> float:
    return float(order) if order else float("inf")


def _protocol(name: str) -> int | None:
    if not name:
        return None
    return int(name) if name.isdigit() else PROTOCOLS[name.lower()]


def _span(port: str) -> tuple[int, int] | None:
    """First and last of a port's number or range; None for a name."""
    first, colon, last = port.partition(":")
    if not first.isdigit():
        return None
    return int(first), int(last if colon else first)


def _apart(spans: Sequence[tuple[int, int]]) -> words.Ports:
    """The same ports, in ranges that do not overlap."""
    found: list[tuple[int, int]] = []
    for first, last in spans:
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return tuple(found)


def _packs(spans: words.Ports, most: int) -> Iterator[words.Ports]:
    pack: list[tuple[int, int]] = []
    room = most
    for first, last in spans:
        room -= 1 if first == last else 2
        if most and room < 0:
            yield tuple(pack)
            pack, room = [], most - (1 if first == last else 2)
        pack.append((first, last))
    if pack:
        yield tuple(pack)


def _any_bit(bits: int) -> Word:
    return words.marked(bits, 0, equal=False)
