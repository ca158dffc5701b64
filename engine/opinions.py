"""What the policies say of the packets of each leg, brought together with its ends; without it policy had no flow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from engine import policy
from engine.passage import asked
from engine.plan import expected_legs
from engine.policy import End, Ends, Gate, Opinion, Packet, Rules
from facts import (
    Backend,
    Blind,
    Fact,
    LabelledEndpoint,
    Leg,
    NetworkSet,
    NodeAddress,
    PoliciesRead,
    Policy,
    PolicyAllows,
    PolicyOpinion,
    Text,
    Tier,
    in_turn,
    joined,
    say,
)

F = TypeVar("F", bound=Fact)

KINDS = {  # as a person calls them
    "KubernetesNetworkPolicy": "NetworkPolicy",
    "NetworkPolicy": "Calico NetworkPolicy",
    "GlobalNetworkPolicy": "GlobalNetworkPolicy",
    "KubernetesClusterNetworkPolicy": "ClusterNetworkPolicy",
}
SHOWN = 6  # kinds of packets that are named
WILDCARD = "*"  # interface of a HostEndpoint that is about every interface without one of its own


def opinions(facts: Sequence[Fact]) -> list[Fact]:
    """A PolicyOpinion for each kind of packet at each end of each leg, and a PolicyAllows for each leg.

    Nothing where the policies were not looked up.
    """
    read = next(iter(_all(facts, PoliciesRead)), None)
    if read is None:
        return []
    try:
        known = _Known(facts, read)
        return [fact for leg in expected_legs(facts) for fact in known.of(leg)]
    except Exception as error:  # a second opinion must not cost the first one
        failed = say("judging the policies failed: {error}", error=f"{type(error).__name__}: {error}")
        return [Blind(look="policies", reason=failed, minor=True)]


def kind_of_packet(one: PolicyOpinion) -> Text:
    """`tcp 5432 into shop/db`."""
    return say(
        "{packet} into {endpoint}" if one.direction == "ingress" else "{packet} out of {endpoint}",
        packet=f"{one.protocol} {one.port}" if one.port else one.protocol,
        endpoint=one.endpoint,
    )


def about_lost(facts: Sequence[Fact], leg: Leg) -> str:
    """What the policies say of a leg whose packets of the asked kind are lost; "" where they were not looked up."""
    protocol, _ = asked(leg)
    mine = [one for one in _all(facts, PolicyOpinion) if (one.flow, one.leg) == (leg.flow, leg.direction)]
    about = [one for one in mine if one.protocol == protocol]
    if not about:
        return ""
    stopped = [told(one) for one in about if one.verdict != "allow"]
    if not stopped:
        if unplaced := _known(facts)[0].unplaced(leg):
            return say(
                "By the policies in the API these packets pass; whether host endpoint {names} is in the way only its "
                "node knows, which did not tell its uplink.",
                names=joined(unplaced),
            )
        return say("By the policies in the API these packets pass.")
    passing = [one for one in _all(facts, PolicyAllows) if (one.flow, one.leg) == (leg.flow, leg.direction)]
    return say(
        "By the policies in the API: {said}",
        said=in_turn([*stopped, *(let_pass(leg.source, leg.target, one) for one in passing)]),
    )


def kept_out(facts: Sequence[Fact], node: str, packet: Packet) -> list[Text]:
    """Which HostEndpoints of the node let no such packet in, whoever sends it, as sentences; empty where the policies
    were not looked up."""
    return [text for known in _known(facts) for text in known.kept_out(node, packet)]


def let_pass(source: str, target: str, one: PolicyAllows) -> str:
    """What passes, as a sentence; "" where nothing surely does and something may."""
    ends = {"source": source, "target": target}
    if one.allowed:
        more = len(one.allowed) - SHOWN
        words = joined(one.allowed[:SHOWN])
        if more > 0:
            words = say("{words} and {count} more", words=words, count=more)
        return say("What they let pass from {source} to {target}: {allowed}.", **ends, allowed=words)
    return "" if one.doubtful else say("They let nothing pass from {source} to {target}.", **ends)


DOUBTS = {
    "read": "What the policies say of {packet} is not known: not all of them could be read.",
    "source": "What the policies say of {packet} depends on the address it is sent from, which is not known.",
    "target": "What the policies say of {packet} depends on the endpoint of the Service that it is sent on to.",
    "rule": "What the policies say of {packet} depends on more than is known, such as the port it is sent from.",
}
OTHERWISE = {
    "profile": "No policy decides on {packet}, and its profile allows it.",
    "no profile": "No policy allows {packet}, and a host endpoint drops what none allows.",
    "failsafe": "{packet} is let through whatever policies say: its port is one of Felix's failsafe ports.",
    "no policy": "No policy decides on {packet}, which only passes this host.",
}


def told(one: PolicyOpinion) -> Text:
    """One opinion as a sentence."""
    packet = kind_of_packet(one)
    if one.verdict == "unknown":
        return say(DOUBTS[one.doubt], packet=packet)
    if one.by == "rule":
        return say(
            "{packet} is allowed by rule {rule} of {policy} in tier {tier}."
            if one.verdict == "allow"
            else "{packet} is denied by rule {rule} of {policy} in tier {tier}.",
            packet=packet,
            rule=f"{one.rule} ({one.rule_name})" if one.rule_name else one.rule,
            policy=called(one.kind, one.namespace, one.name),
            tier=one.tier,
        )
    if one.by == "end of tier":
        return say(
            "{packet} is dropped at the end of tier {tier}: none of its policies there allows it ({policies}).",
            packet=packet,
            tier=one.tier,
            policies=joined(one.consulted),
        )
    return say(OTHERWISE[one.by], packet=packet)


def called(kind: str, namespace: str, name: str) -> str:
    """`NetworkPolicy shop/db`, `GlobalNetworkPolicy block`: a policy as a person calls it."""
    return f"{KINDS.get(kind, kind)} {namespace}/{name}" if namespace else f"{KINDS.get(kind, kind)} {name}"


class PolicyStep(msgspec.Struct, frozen=True, kw_only=True):
    """One tier on the way of a packet through a gate."""

    tier: str
    policies: tuple[str, ...]  # in the order they are asked: "NetworkPolicy shop/db"
    end: str  # "allow" | "deny" | "pass": on to the next one | "unknown" | "not reached"
    early: bool = False  # only policies of untracked packets, or those before DNAT


class PolicyGate(msgspec.Struct, frozen=True, kw_only=True):
    """What stands at one end, and how the asked packet fares there."""

    opinion: PolicyOpinion
    steps: tuple[PolicyStep, ...]  # tiers with a policy about this end; none where no policy is


class PolicyWalk(msgspec.Struct, frozen=True, kw_only=True):
    """The way there of one flow through every gate, by the policies alone."""

    flow: str
    family: int
    source: str
    target: str
    source_kind: str  # "pod" | "node" | "outside"
    target_kind: str
    within: bool  # both are on one node
    protocol: str  # of the asked packet; icmp where no port was asked
    port: int  # where the target itself listens; 0 where none was asked
    verdict: str  # "allow" | "some": no port was asked, and not everything passes | "deny" | "unknown"
    gates: tuple[PolicyGate, ...]  # in the order the packet comes to them
    passes: PolicyAllows | None  # None: nobody can say
    staged: PolicyAllows | None  # the same, were the staged policies enforced; None also where there are none
    unplaced: tuple[str, ...] = ()  # HostEndpoints of which only their nodes know whether the packet passes them


EVERYTHING = frozenset(("tcp", "udp", "sctp", "icmp"))


def walks(facts: Sequence[Fact]) -> list[PolicyWalk]:
    """The way there of each flow, gate by gate. Nothing where the policies were not looked up, or no flow is known."""
    return [known.walk(leg) for known in _known(facts) for leg in expected_legs(facts) if leg.direction == "forward"]


def _known(facts: Sequence[Fact]) -> list[_Known]:
    """One, or none where the policies were not looked up."""
    return [_Known(facts, read) for read in _all(facts, PoliciesRead)[:1]]


def _verdict(opinions: Sequence[PolicyOpinion], passes: PolicyAllows | None, *, asked: bool, doubted: bool) -> str:
    """Of the asked port, or of everything."""
    if asked:
        if any(one.verdict == "deny" for one in opinions):
            return "deny"
        return "allow" if passes and not doubted and all(one.verdict == "allow" for one in opinions) else "unknown"
    if passes is None or (doubted and passes.allowed) or (passes.doubtful and not passes.allowed):
        return "unknown"
    if not passes.allowed:
        return "deny"
    return "allow" if set(passes.allowed) >= EVERYTHING else "some"


class _Place(NamedTuple):
    """Whose policies stand somewhere on a leg."""

    node: str
    endpoint: LabelledEndpoint
    direction: str  # as seen from the endpoint
    forward: bool = False
    arrived: bool = False  # on the target's node: the source's may have put its own address in by then


class _Known:
    """The facts about policies, as the legs need them."""

    def __init__(self, facts: Sequence[Fact], read: PoliciesRead) -> None:
        about = sum(isinstance(one, Policy | Tier | NetworkSet | LabelledEndpoint) for one in facts)
        self._complete = not read.missing and read.told <= about
        self._endpoints = _all(facts, LabelledEndpoint)
        self._sets = _all(facts, NetworkSet)
        self._backends = _all(facts, Backend)
        self._uplinks = {(one.node, one.address): one.device for one in _all(facts, NodeAddress) if one.found}
        policies = tuple(_all(facts, Policy))
        self._rules = Rules(policies, tuple(_all(facts, Tier)), read.names_first)
        self._staged = [one for one in policies if one.staged]
        self._enforced = self._rules._replace(policies=policy.staged_enforced(policies))

    def of(self, leg: Leg) -> Iterator[Fact]:
        places = list(self._places(leg))
        kinds = [Packet("icmp")]
        if leg.port_asked and leg.direction == "forward":
            kinds.append(Packet(leg.protocol, leg.port))
        views = self._views(self._rules, leg, places)
        for at, place in enumerate(places):
            staged = [one for one in self._staged if policy.about(one, place.endpoint)]
            enforced = [self._gate(self._enforced, place, leg, source) for source in _sources(leg) if staged]
            for packet in kinds:
                found = self._opinion(leg, place, packet, [policy.decide(view[at], packet) for view in views])
                then = _same([policy.decide(one, packet) for one in enforced]).verdict if enforced else found.verdict
                yield msgspec.structs.replace(
                    found,
                    staged="" if then == found.verdict or not self._complete else then,
                    staged_by=tuple(called(one.kind, one.namespace, one.name) for one in staged),
                )
        if leg.node_port:  # what passes to the node's own ports would say nothing of this one
            yield from self._of_node_port(leg)
        elif self._complete and self._all_known(leg):
            yield _allows(leg, views)

    def _of_node_port(self, leg: Leg) -> Iterator[PolicyOpinion]:
        """Of packets to a node's port that is a Service's, as they leave the source pod. What is for its own node has
        the address and port of an endpoint by then: kube-proxy comes before egress policies. What is for another node
        still carries the node's."""
        (source, *_), packet = _sources(leg), Packet(*asked(leg))
        behind = [
            one
            for one in self._backends
            if leg.source_node == leg.target_node and one.used and (one.sender, one.family) == (leg.target, leg.family)
        ]
        for place in self._pod(leg.source, leg.source_node, "egress"):
            ends = [(self._end(one.address, one.endpoint), Packet(one.protocol, one.port)) for one in behind]
            possible = [
                policy.decide(
                    policy.gate(
                        self._rules, place.endpoint, "egress", Ends(self._end(source, leg.source), end, leg.family)
                    ),
                    sent_on,
                )
                for end, sent_on in ends or [(self._end(leg.target_address, leg.target), packet)]
            ]
            if not all(one.endpoint for one in behind):
                possible.append(Opinion("unknown", ""))  # one that nobody looked up: whom it selects is not known
            yield self._opinion(leg, place, packet, possible, differs="target")

    def walk(self, leg: Leg) -> PolicyWalk:
        """The way there, as `of` judges it."""
        told = list(self.of(leg))
        protocol, port = (leg.protocol, leg.port) if leg.port_asked else ("icmp", 0)
        packet = Packet(protocol, port)
        mine = [one for one in told if isinstance(one, PolicyOpinion) and (one.protocol, one.port) == packet[:2]]
        places = list(self._places(leg))
        passes = next((one for one in told if isinstance(one, PolicyAllows)), None)
        unplaced = self.unplaced(leg)
        staged = any(one.staged_by for one in mine)
        return PolicyWalk(
            flow=leg.flow,
            family=leg.family,
            source=leg.source,
            target=leg.target,
            source_kind=leg.source_kind,
            target_kind=leg.target_kind,
            within=bool(leg.source_node) and leg.source_node == leg.target_node,
            protocol=protocol,
            port=port,
            verdict=_verdict(mine, passes, asked=leg.port_asked, doubted=bool(unplaced)),
            gates=tuple(
                PolicyGate(opinion=one, steps=self._steps(leg, place, packet))
                for one, place in zip(mine, places, strict=True)
            ),
            passes=passes,
            staged=_allows(leg, self._views(self._enforced, leg, places)) if staged and passes else None,
            unplaced=unplaced,
        )

    def _views(self, rules: Rules, leg: Leg, places: Sequence[_Place]) -> list[list[Gate]]:
        """The gates of the way, for each address the packet may be sent from."""
        return [[self._gate(rules, place, leg, source) for place in places] for source in _sources(leg)]

    def _steps(self, leg: Leg, place: _Place, packet: Packet) -> tuple[PolicyStep, ...]:
        possible = [policy.steps(self._gate(self._rules, place, leg, source), packet) for source in _sources(leg)]
        return tuple(
            PolicyStep(
                tier=same[0].tier.name,
                policies=tuple(called(one.kind, one.namespace, one.name) for one in same[0].policies),
                end=same[0].end if self._complete and len({one.end for one in same}) == 1 else "unknown",
                early=same[0].early,
            )
            for same in zip(*possible, strict=True)
        )

    def kept_out(self, node: str, packet: Packet) -> Iterator[Text]:
        """Of packets to the node itself, by each of its HostEndpoints."""
        for one in self._endpoints if self._complete else ():
            if one.kind != "host" or one.node != node:
                continue
            ends = Ends(End("", (), ()), End("", (one,), ()), 4)
            said = policy.decide(policy.gate(self._rules, one, "ingress", ends), packet)
            if said.verdict == "deny":
                opinion = PolicyOpinion(
                    flow="",
                    leg="forward",
                    node=node,
                    endpoint=one.name,
                    endpoint_kind="host",
                    direction="ingress",
                    family=4,
                    protocol=packet.protocol,
                    port=packet.port,
                    verdict=said.verdict,
                    by=said.by,
                    tier=said.tier,
                    **_decided_by(said, _Place(node, one, "ingress")),
                )
                yield say(
                    "{said} That host endpoint is of every interface of {node}."
                    if one.interface == WILDCARD
                    else "{said} That host endpoint is of {interface} on {node}.",
                    said=told(opinion),
                    interface=one.interface or joined(one.addresses),
                    node=node,
                )

    def unplaced(self, leg: Leg) -> tuple[str, ...]:
        """HostEndpoints of an interface that may be the uplink, which nobody asked the node, and that may stop it."""
        ends = ((leg.source_node, leg.source_node_address, leg.source_kind),
                (leg.target_node, leg.target_node_address, leg.target_kind))  # fmt: skip
        if leg.expected_device or leg.source_node == leg.target_node:
            return ()
        forwarded = [one for one in self._rules.policies if one.apply_on_forward and not one.staged]
        return tuple(
            one.name
            for node, address, kind in ends
            for one in self._endpoints
            if node and one.kind == "host" and one.node == node and one.interface not in ("", WILDCARD)
            and not one.addresses and (node, address) not in self._uplinks
            and (kind != "pod" or any(policy.about(each, one) for each in forwarded))
        )  # fmt: skip

    def _opinion(
        self, leg: Leg, place: _Place, packet: Packet, possible: Sequence[Opinion], *, differs: str = "source"
    ) -> PolicyOpinion:
        said, of = (
            _same(possible),
            PolicyOpinion(
                flow=leg.flow,
                leg=leg.direction,
                node=place.node,
                endpoint=place.endpoint.name,
                endpoint_kind=place.endpoint.kind,
                direction=place.direction,
                forward=place.forward,
                family=leg.family,
                protocol=packet.protocol,
                port=packet.port,
                verdict="unknown",
            ),
        )
        if not self._complete:
            return msgspec.structs.replace(of, doubt="read")
        if said.verdict == "unknown":
            return msgspec.structs.replace(of, doubt="rule" if possible[0].verdict == "unknown" else differs)
        return msgspec.structs.replace(of, verdict=said.verdict, by=said.by, tier=said.tier, **_decided_by(said, place))

    # -- where policies stand on a leg --------------------------------------------------------------------------------

    def _places(self, leg: Leg) -> Iterator[_Place]:
        """In the order a packet comes to them. What a node sends to its own pods nothing stops."""
        within = leg.source_node == leg.target_node
        uplink = not leg.expected_device
        if leg.source_inside and leg.source_kind == "pod":
            if not (within and leg.target_kind == "node"):
                yield from self._host(leg.source_node, "ingress", forward=True)
            yield from self._pod(leg.source, leg.source_node, "egress")
            if not within:
                yield from self._host(leg.source_node, "egress", forward=True, leg=leg, uplink=uplink)
        elif leg.source_inside and not within:
            yield from self._host(leg.source_node, "egress", leg=leg, uplink=uplink)
        if within and leg.source_kind == "node":
            return
        if leg.target_inside and leg.target_kind == "pod":
            if not within:
                yield from self._host(leg.target_node, "ingress", forward=True, leg=leg, uplink=uplink, arrived=True)
            yield from self._pod(leg.target, leg.target_node, "ingress", arrived=True)
            yield from self._host(leg.target_node, "egress", forward=True, arrived=True)
        elif leg.target_inside and not within:
            yield from self._host(leg.target_node, "ingress", leg=leg, uplink=uplink, arrived=True)

    def _pod(self, name: str, node: str, direction: str, *, arrived: bool = False) -> Iterator[_Place]:
        for one in self._endpoints:
            if one.kind == "pod" and one.name == name:
                yield _Place(node, one, direction, arrived=arrived)

    def _host(
        self,
        node: str,
        direction: str,
        *,
        leg: Leg | None = None,
        uplink: bool = False,
        forward: bool = False,
        arrived: bool = False,
    ) -> Iterator[_Place]:
        """The HostEndpoint of the interface: the uplink, a tunnel, or (without a leg) a pod's, which only one for all
        interfaces is about."""
        hosts = [one for one in self._endpoints if one.kind == "host" and one.node == node]
        own = [one for one in hosts if leg is not None and self._is_of(one, leg, node, uplink=uplink)]
        for one in (own or [one for one in hosts if one.interface == WILDCARD])[:1]:
            yield _Place(node, one, direction, forward, arrived)

    def _is_of(self, host: LabelledEndpoint, leg: Leg, node: str, *, uplink: bool) -> bool:
        at_source = node == leg.source_node
        node_address = leg.source_node_address if at_source else leg.target_node_address
        tunnel_address = leg.source_tunnel_address if at_source else leg.target_tunnel_address
        device = self._uplinks.get((node, node_address), "") if uplink else leg.expected_device
        if host.interface == WILDCARD:
            return False
        if host.interface and device:
            return host.interface == device
        return (node_address if uplink else tunnel_address) in host.addresses

    def _all_known(self, leg: Leg) -> bool:
        """Are the labels known of every pod of the leg?"""
        known = {one.name for one in self._endpoints if one.kind == "pod"}
        return all(
            kind != "pod" or name in known
            for kind, name in ((leg.source_kind, leg.source), (leg.target_kind, leg.target))
        )

    # -- who is at an address -----------------------------------------------------------------------------------------

    def _gate(self, rules: Rules, place: _Place, leg: Leg, source: str) -> Gate:
        translated = place.arrived and leg.encapsulation == "host" and leg.source_kind == "pod"
        sends_as = leg.source_node_address if translated else source
        ends = Ends(
            self._end(sends_as, "" if translated else leg.source), self._end(leg.target_address, leg.target), leg.family
        )
        return policy.gate(rules, place.endpoint, place.direction, ends, forward=place.forward)

    def _end(self, address: str, name: str) -> End:
        return End(
            address,
            tuple(
                one
                for one in self._endpoints
                if (one.kind == "pod" and one.name == name) or (one.kind == "host" and address in one.addresses)
            ),
            tuple(one for one in self._sets if policy.contains(one, address)),
        )


def _sources(leg: Leg) -> list[str]:
    """The address its packets carry. What a node sends into some tunnels carries one that is not known."""
    if leg.obstacle == "node":
        return [leg.source_node_address, ""]
    return [leg.source_address or leg.source_node_address]


def _same(possible: Sequence[Opinion]) -> Opinion:
    """The one opinion, or that it cannot be said."""
    first = possible[0]
    return first if all(one.verdict == first.verdict for one in possible) else Opinion("unknown", "")


def _decided_by(said: Opinion, place: _Place) -> dict[str, Any]:
    one = said.policy
    if one is None:
        return {"consulted": tuple(called(of.kind, of.namespace, of.name) for of in said.consulted)}
    rules = one.ingress if place.direction == "ingress" else one.egress
    rule_name = rules[said.rule - 1].name
    return {"kind": one.kind, "namespace": one.namespace, "name": one.name, "rule": said.rule, "rule_name": rule_name}


def _allows(leg: Leg, views: Sequence[Sequence[Gate]]) -> PolicyAllows:
    (allowed, doubtful), *others = [policy.allowed(view) for view in views]
    if any(one != (allowed, doubtful) for one in others):
        allowed, doubtful = (
            (),
            tuple(dict.fromkeys((*allowed, *doubtful, *(word for one in others for word in one[0])))),
        )
    return PolicyAllows(flow=leg.flow, leg=leg.direction, allowed=allowed, doubtful=doubtful)


def _all(facts: Iterable[Fact], kind: type[F]) -> list[F]:
    return [fact for fact in facts if isinstance(fact, kind)]
