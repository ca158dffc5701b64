"""What policies say of a packet, as Felix would program them; without it nobody could say why a rule is there.

A second opinion: the kernel's rules decide, and they can be older than what is read here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address, ip_network
from itertools import pairwise
from typing import NamedTuple

import msgspec

from facts import LabelledEndpoint, NetworkSet, Policy, PolicyPeer, PolicyRule, Tier, selector
from facts.selector import SelectorError

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132, "udplite": 136}
WITH_PORTS = ("tcp", "udp", "sctp")
PING = {4: (8, 0), 6: (128, 0)}  # ICMP type and code of an echo request
MOST_PORT = 65535
NAMESPACE = "projectcalico.org/namespace"
SERVICE_ACCOUNT = "projectcalico.org/serviceaccount"
DEFAULT_ALLOW = "projectcalico-default-allow"  # a profile that is always there, of host endpoints nobody made
DEFAULT_TIER = Tier(name="default", order="1000000")  # where tiers are no resources yet


class End(NamedTuple):
    """One end of a packet: its address, and what labels that address has."""

    address: str
    endpoints: tuple[LabelledEndpoint, ...] = ()  # who has it: a pod, or HostEndpoints that expect it
    sets: tuple[NetworkSet, ...] = ()  # those that contain it


class Ends(NamedTuple):
    """Who begins the conversation with whom."""

    source: End
    target: End
    family: int


class Packet(NamedTuple):
    """The first packet of a conversation. Answers are let through by the kernel's connection tracking."""

    protocol: str  # "icmp" of either family: a ping; "tcp", "udp", "sctp", or a number
    port: int = 0  # of the target
    source_port: int | None = None  # None: nobody knows


class Rules(NamedTuple):
    """Everything that decides. Policies about nobody who is asked for may be left out."""

    policies: tuple[Policy, ...] = ()
    tiers: tuple[Tier, ...] = ()
    names_first: bool = True  # as PoliciesRead


class Opinion(NamedTuple):
    """What becomes of a packet at one endpoint, and by what."""

    verdict: str  # "allow" | "deny" | "unknown"
    by: str  # as PolicyOpinion
    tier: str = ""
    policy: Policy | None = None
    rule: int = 0
    consulted: tuple[Policy, ...] = ()


class Asked(NamedTuple):
    """A policy with those of its rules that could match between these ends, each with its number."""

    policy: Policy
    rules: tuple[tuple[int, PolicyRule], ...]


Tiers = tuple[tuple[Tier, tuple[Asked, ...]], ...]  # in order, only those with a policy about the endpoint


class Gate(NamedTuple):
    """The policies about one endpoint in one direction, in the order they are asked."""

    endpoint: LabelledEndpoint
    direction: str  # "egress" | "ingress", as seen from the endpoint
    ends: Ends
    forward: bool  # a host that the packet only passes
    early: tuple[Tiers, ...]  # of a host: untracked policies, and those before DNAT; who matches none of them goes on
    late: Tiers


class Step(NamedTuple):
    """What becomes of a packet in one tier of a gate."""

    tier: Tier
    policies: tuple[Policy, ...]  # about the endpoint, in the order they are asked
    end: str  # "allow" | "deny" | "pass": on to the next one | "unknown" | "not reached"
    early: bool  # its policies are those of untracked packets, or those before DNAT


def gate(rules: Rules, endpoint: LabelledEndpoint, direction: str, ends: Ends, *, forward: bool = False) -> Gate:
    """What stands at `endpoint` for packets between these ends that leave it ("egress") or come to it ("ingress").

    forward: the endpoint is a host the packet only passes.
    """
    wanted = direction.capitalize()
    mine = [
        one for one in rules.policies if not one.staged and wanted in (one.types or (wanted,)) and about(one, endpoint)
    ]
    early = [[one for one in mine if one.do_not_track]]
    if direction == "ingress":
        early.append([one for one in mine if one.pre_dnat])
    late = [one for one in mine if not (one.do_not_track or one.pre_dnat) and (one.apply_on_forward or not forward)]
    return Gate(
        endpoint,
        direction,
        ends,
        forward,
        tuple(_in_order(rules, policies, direction, ends) for policies in early if policies),
        _in_order(rules, late, direction, ends),
    )


def decide(at: Gate, packet: Packet) -> Opinion:
    """What becomes of the packet there."""
    possible: list[Opinion] = []
    safe = at.endpoint.kind == "host" and _failsafe(at, packet)
    if safe and not at.forward:
        return Opinion("allow", "failsafe")
    for tiers in () if safe else at.early:
        found = _by_tiers(tiers, at.ends, packet, Opinion("allow", "no policy"), end_drops=False)
        if found[-1].by != "no policy":
            return _settled(possible + found)
        possible += found[:-1]
    return _settled(possible + _by_tiers(at.late, at.ends, packet, _otherwise(at)))


def steps(at: Gate, packet: Packet) -> list[Step]:
    """How the packet goes through the gate, tier by tier: where `decide` takes its verdict from."""
    on = Opinion("pass", "")
    safe = at.endpoint.kind == "host" and _failsafe(at, packet)
    reached = not (safe and not at.forward)
    found: list[Step] = []
    for early, tiers in (*((True, one) for one in at.early), (False, at.late)):
        for one in tiers:
            end = "not reached"
            if reached and not (safe and early):
                ends = {each.verdict for each in _by_tiers((one,), at.ends, packet, on, end_drops=not early)}
                end = ends.pop() if len(ends) == 1 else "unknown"
            found.append(Step(one[0], tuple(asked.policy for asked in one[1]), end, early))
            reached = reached and end not in ("allow", "deny")
    return found


def together(opinions: Iterable[Opinion]) -> str:
    """The verdict on a packet that has to pass all of them."""
    verdicts = [one.verdict for one in opinions]
    return next((one for one in ("deny", "unknown") if one in verdicts), "allow")


def allowed(gates: Sequence[Gate]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All that passes every gate, and what may, each in words: `5432/tcp`, `8000-8080/udp`, `tcp`, `icmp`.

    Only ports at which a rule or a name begins or ends are tried: between them nothing can change.
    """

    found: dict[str, list[str]] = {"allow": [], "unknown": []}
    for protocol in WITH_PORTS:
        of_protocol = [_narrowed(one, protocol) for one in gates]
        spans = [
            (together(decide(one, Packet(protocol, first)) for one in of_protocol), first, after - 1)
            for first, after in pairwise(_cuts(of_protocol))
        ]
        for said, words in found.items():
            words += _in_words(protocol, [(first, last) for of, first, last in spans if of == said])
    for protocol in ("icmp", *_numbered(gates)):
        said = together(decide(one, Packet(protocol)) for one in gates)
        if said in found:
            found[said].append(protocol if protocol == "icmp" else f"protocol {protocol}")
    return tuple(found["allow"]), tuple(found["unknown"])


def about(policy: Policy, endpoint: LabelledEndpoint) -> bool:
    """Does the policy select this endpoint? One whose selectors Felix could not read it does not program."""
    if not _readable(policy):
        return False
    if policy.namespace and policy.namespace != endpoint.namespace:
        return False
    if endpoint.kind == "pod" and (policy.do_not_track or policy.pre_dnat):
        return False
    every = _everybody
    if policy.namespace_selector:
        every = _in_a_namespace
    elif policy.service_account_selector:
        every = _with_service_account
    return (
        selector.parse(policy.selector, every)(labels(endpoint))
        and _namespace_selected(policy.namespace_selector, endpoint)
        and _account_selected(policy.service_account_selector, endpoint)
    )


def contains(one: NetworkSet, address: str) -> bool:
    """Is the address in the set?"""
    return _in_nets(one.nets, address)


@functools.lru_cache(maxsize=1024)
def protocol_number(name: str) -> int:
    """Of a protocol's name or number; -1 for what is neither."""
    return int(name) if name.isdigit() else PROTOCOLS.get(name.lower(), -1)


def staged_enforced(policies: Sequence[Policy]) -> tuple[Policy, ...]:
    """The policies as they were if every staged one were enforced."""
    staged = {(one.kind, one.namespace, one.name) for one in policies if one.staged}
    return tuple(
        msgspec.structs.replace(policy, staged=False) if policy.staged else policy
        for policy in policies
        if not policy.removes and (policy.staged or (policy.kind, policy.namespace, policy.name) not in staged)
    )


# -- tiers and policies, in order --------------------------------------------------------------------------------------


def _in_order(rules: Rules, policies: Sequence[Policy], direction: str, ends: Ends) -> Tiers:
    place = _place(rules.names_first)
    of_tiers = [(tier, sorted((one for one in policies if one.tier == tier.name), key=place)) for tier in _tiers(rules)]
    return tuple(
        (tier, tuple(_asked(one, direction, ends) for one in of_tier)) for tier, of_tier in of_tiers if of_tier
    )


def _asked(policy: Policy, direction: str, ends: Ends) -> Asked:
    rules = policy.ingress if direction == "ingress" else policy.egress
    numbered = enumerate(rules, start=1)
    return Asked(policy, tuple((at, one) for at, one in numbered if _concerns(one, policy.namespace, ends)))


def _by_tiers(tiers: Tiers, ends: Ends, packet: Packet, otherwise: Opinion, *, end_drops: bool = True) -> list[Opinion]:
    """What can become of the packet: more than one thing where a rule needs what nobody knows."""

    def from_tier(place: int) -> list[Opinion]:
        if place == len(tiers):
            return [otherwise]
        tier, asked = tiers[place]
        possible: list[Opinion] = []
        for policy, rules in asked:
            for number, rule in rules:
                hit = rule.action != "Log" and _carries(rule, ends, packet)
                if hit is False:
                    continue
                if rule.action == "Pass":
                    possible += from_tier(place + 1)
                else:
                    verdict = "allow" if rule.action == "Allow" else "deny"
                    possible.append(Opinion(verdict, "rule", tier.name, policy, number))
                if hit:
                    return possible
        if tier.default_action == "Pass" or not end_drops:
            return possible + from_tier(place + 1)
        consulted = tuple(one.policy for one in asked)
        return [*possible, Opinion("deny", "end of tier", tier.name, consulted=consulted)]

    return from_tier(0)


def _settled(possible: Sequence[Opinion]) -> Opinion:
    """The last is what happens where no rule is in doubt. Where that makes no difference, neither do the others."""
    last = possible[-1]
    return last if all(one.verdict == last.verdict for one in possible) else last._replace(verdict="unknown", by="")


def _otherwise(at: Gate) -> Opinion:
    """What becomes of what no policy took. The profiles that exist, a namespace's and one of Calico's own, allow all.

    A host that a packet only passes has none.
    """
    if at.forward:
        return Opinion("allow", "no policy")
    if at.endpoint.kind == "pod" or any(one == DEFAULT_ALLOW or one.startswith("kns.") for one in at.endpoint.profiles):
        return Opinion("allow", "profile")
    return Opinion("deny", "no profile")


def _tiers(rules: Rules) -> list[Tier]:
    known = list(rules.tiers)
    if all(one.name != DEFAULT_TIER.name for one in known):
        known.append(DEFAULT_TIER)
    return sorted(known, key=lambda tier: (_order(tier.order), tier.name))


def _place(names_first: bool) -> Callable[[Policy], tuple[float, str]]:
    def place(policy: Policy) -> tuple[float, str]:
        if names_first:
            return _order(policy.order), f"{policy.name}/{policy.namespace}/{policy.kind}"
        prefix = "knp.default." if policy.kind == "KubernetesNetworkPolicy" else f"{policy.tier}."
        name = policy.name if policy.name.startswith(prefix) else prefix + policy.name
        return _order(policy.order), f"{policy.namespace}/{name}" if policy.namespace else name

    return place


def _order(order: str) -> float:
    return float(order) if order else float("inf")


def _failsafe(at: Gate, packet: Packet) -> bool:
    inward = at.direction == "ingress"
    other = at.ends.source if inward else at.ends.target
    for one in at.endpoint.failsafe_in if inward else at.endpoint.failsafe_out:
        port, _, net = one.partition(" ")
        if port == f"{packet.port}/{packet.protocol}" and (not net or _in_nets((net,), other.address)):
            return True
    return False


# -- one rule ----------------------------------------------------------------------------------------------------------


def _concerns(rule: PolicyRule, namespace: str, ends: Ends) -> bool:
    """Could the rule of a policy of that namespace match any packet between these ends?"""
    return (
        rule.ip_version in (0, ends.family)
        and _of_family(rule, ends.family)
        and _peer(rule.source, namespace, ends.source)
        and _peer(rule.destination, namespace, ends.target)
    )


def _carries(rule: PolicyRule, ends: Ends, packet: Packet) -> bool | None:
    """Does a rule that concerns these ends match this packet? None: it needs what nobody knows."""
    if not _of_protocol(rule, packet.protocol, ends.family) or not _icmp(rule, packet, ends.family):
        return False
    to = _ports(rule.destination, ends.target, packet, packet.port)
    if to is False:
        return False
    return _every(
        to,
        _ports(rule.source, ends.source, packet, packet.source_port),
        _service(rule.source, ends.source, ""),
        _service(rule.destination, ends.target, f"{packet.port}/{packet.protocol}"),
    )


def _of_protocol(rule: PolicyRule, protocol: str, family: int) -> bool:
    number = protocol_number("icmpv6" if protocol == "icmp" and family == 6 else protocol)
    if rule.protocol and protocol_number(rule.protocol) != number:
        return False
    return not rule.not_protocol or protocol_number(rule.not_protocol) != number


def _every(*conditions: bool | None) -> bool | None:
    if False in conditions:
        return False
    return None if None in conditions else True


def _of_family(rule: PolicyRule, family: int) -> bool:
    """A rule whose networks are all of the other family is not programmed for this one."""
    sides = (rule.source.nets, rule.source.not_nets, rule.destination.nets, rule.destination.not_nets)
    return all(not nets or any((":" in net) == (family == 6) for net in nets) for nets in sides)


def _icmp(rule: PolicyRule, packet: Packet, family: int) -> bool:
    of_icmp = packet.protocol == "icmp"
    wanted, unwanted = (rule.icmp_type, rule.icmp_code), (rule.not_icmp_type, rule.not_icmp_code)
    sent = PING[family]
    if wanted != (-1, -1) and not (of_icmp and _same_icmp(wanted, sent)):
        return False
    return unwanted == (-1, -1) or not (of_icmp and _same_icmp(unwanted, sent))


def _same_icmp(written: tuple[int, int], sent: tuple[int, int]) -> bool:
    return all(number in (-1, own) for number, own in zip(written, sent, strict=True))


def _peer(peer: PolicyPeer, namespace: str, end: End) -> bool:
    if peer.nets and not _in_nets(peer.nets, end.address):
        return False
    if peer.not_nets and _in_nets(peer.not_nets, end.address):
        return False
    if peer.not_selector and any(selector.matches(peer.not_selector, labels(one)) for one in _having(end)):
        return False
    if not _selects(peer, namespace):
        return True
    return any(_selected(peer, namespace, one) for one in _having(end))


def _selects(peer: PolicyPeer, namespace: str) -> bool:
    """As soon as any of these is given, a namespaced policy means its own namespace only. A cluster-wide one that only
    excludes somebody means everybody else, addresses of nobody too."""
    return bool(
        peer.selector
        or (peer.not_selector and namespace)
        or peer.namespace_selector
        or peer.service_account_names
        or peer.service_account_selector
    )


def _selected(peer: PolicyPeer, namespace: str, one: LabelledEndpoint | NetworkSet) -> bool:
    if peer.namespace_selector:
        if not _namespace_selected(peer.namespace_selector, one):
            return False
    elif namespace and one.namespace != namespace:
        return False
    if peer.selector and not selector.matches(peer.selector, labels(one)):
        return False
    if peer.service_account_names and labels(one).get(SERVICE_ACCOUNT) not in peer.service_account_names:
        return False
    return _account_selected(peer.service_account_selector, one)


def _ports(peer: PolicyPeer, end: End, packet: Packet, number: int | None) -> bool | None:
    if peer.ports:
        hit = _among(peer.ports, end, packet, number)
        if not hit:
            return hit
    if peer.not_ports:
        hit = _among(peer.not_ports, end, packet, number)
        return None if hit is None else not hit
    return True


def _among(ports: Sequence[str], end: End, packet: Packet, number: int | None) -> bool | None:
    if packet.protocol not in WITH_PORTS:
        return False
    if number is None:
        return True if any(span(port) in ((0, MOST_PORT), (1, MOST_PORT)) for port in ports) else None
    for port in ports:
        numbers = span(port)
        if numbers is None:
            if any((port, packet.protocol, number) in one.ports for one in end.endpoints):
                return True
        elif numbers[0] <= number <= numbers[1]:
            return True
    return False


def _service(peer: PolicyPeer, end: End, port: str) -> bool | None:
    """port: of a Service that is sent to; one that sends does so from any."""
    if not peer.service_read:
        return None
    if not peer.service:
        return True
    return f"{end.address} {port}".strip() in peer.service_endpoints


@functools.lru_cache(maxsize=16384)
def span(port: str) -> tuple[int, int] | None:
    """First and last number of "80" or "8000:8080"; None for a name."""
    first, _, last = port.partition(":")
    if not first.isdigit() or not (last or first).isdigit():
        return None
    return int(first), int(last or first)


def _in_nets(nets: Iterable[str], address: str) -> bool:
    return any(_in_net(net, address) for net in nets)


@functools.lru_cache(maxsize=16384)
def _in_net(net: str, address: str) -> bool:
    try:
        return ip_address(address) in ip_network(net, strict=False)
    except ValueError:
        return False


# -- labels ------------------------------------------------------------------------------------------------------------


def labels(one: LabelledEndpoint | NetworkSet) -> dict[str, str]:
    """As selectors see them: what it inherits from its namespace and service account has a prefix."""
    found = {f"pcns.{key}": value for key, value in one.namespace_labels}
    if isinstance(one, LabelledEndpoint):
        found |= {f"pcsa.{key}": value for key, value in one.service_account_labels}
    return found | dict(one.labels)


def _having(end: End) -> Iterator[LabelledEndpoint | NetworkSet]:
    """All that has labels and this address."""
    yield from end.endpoints
    yield from end.sets


def _namespace_selected(text: str, one: LabelledEndpoint | NetworkSet) -> bool:
    """all() is whatever is in a namespace, global() whatever is in none."""
    if not text:
        return True
    inside = bool(one.namespace)
    every, outside = (_everybody, _nobody) if inside else (_nobody, _everybody)
    return selector.parse(text, every, outside)(dict(one.namespace_labels))


def _account_selected(text: str, one: LabelledEndpoint | NetworkSet) -> bool:
    own = one.service_account_labels if isinstance(one, LabelledEndpoint) else ()
    return not text or selector.matches(text, dict(own))


def _everybody(own: selector.Labels) -> bool:
    return True


def _nobody(own: selector.Labels) -> bool:
    return False


def _in_a_namespace(own: selector.Labels) -> bool:
    return NAMESPACE in own


def _with_service_account(own: selector.Labels) -> bool:
    return SERVICE_ACCOUNT in own


@functools.lru_cache(maxsize=4096)
def _readable(policy: Policy) -> bool:
    peers = [peer for rule in (*policy.ingress, *policy.egress) for peer in (rule.source, rule.destination)]
    texts = [policy.selector, policy.namespace_selector, policy.service_account_selector]
    for peer in peers:
        texts += [peer.selector, peer.not_selector, peer.namespace_selector, peer.service_account_selector]
    try:
        for text in texts:
            selector.parse(text)
    except SelectorError:
        return False
    return True


# -- all ports ---------------------------------------------------------------------------------------------------------


def _narrowed(at: Gate, protocol: str) -> Gate:
    """Without the rules about other protocols."""

    def narrowed(tiers: Tiers) -> Tiers:
        return tuple(
            (
                tier,
                tuple(
                    Asked(policy, tuple(one for one in rules if _of_protocol(one[1], protocol, at.ends.family)))
                    for policy, rules in asked
                ),
            )
            for tier, asked in tiers
        )

    return at._replace(early=tuple(map(narrowed, at.early)), late=narrowed(at.late))


def _cuts(gates: Sequence[Gate]) -> list[int]:
    """Where what is said of a port can change, the first port and one past the last among them."""
    spans = [(1, MOST_PORT)]
    names = [number for at in gates for one in at.ends.target.endpoints for _, _, number in one.ports]
    safe = [port for at in gates for port in (*at.endpoint.failsafe_in, *at.endpoint.failsafe_out)]
    for rule in _all_rules(gates):
        safe += [one.rpartition(" ")[2] for one in rule.destination.service_endpoints]
        written = map(span, (*rule.destination.ports, *rule.destination.not_ports))
        spans += [one for one in written if one is not None]
    names += [int(number) for one in safe if (number := one.partition("/")[0]).isdigit()]
    found = {cut for first, last in (*spans, *((one, one) for one in names)) for cut in (first, last + 1)}
    return sorted(one for one in found if 1 <= one <= MOST_PORT + 1)


def _numbered(gates: Sequence[Gate]) -> list[str]:
    """Protocols beside the usual ones which some rule names."""
    rules = tuple(_all_rules(gates))
    named = {protocol_number(name) for rule in rules for name in (rule.protocol, rule.not_protocol) if name}
    return [str(one) for one in sorted(named - {-1, *PROTOCOLS.values()})]


def _all_rules(gates: Sequence[Gate]) -> Iterator[PolicyRule]:
    return (
        rule
        for at in gates
        for tiers in (*at.early, at.late)
        for _, asked in tiers
        for one in asked
        for _, rule in one.rules
    )


def _in_words(protocol: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    joined: list[tuple[int, int]] = []
    for first, last in spans:
        if joined and joined[-1][1] == first - 1:
            joined[-1] = joined[-1][0], last
        else:
            joined.append((first, last))
    if joined == [(1, MOST_PORT)]:
        return [protocol]
    return [f"{first}/{protocol}" if first == last else f"{first}-{last}/{protocol}" for first, last in joined]
