"""Which leg's packets a rule ended, and whether that answers the question; without it every rule would ask anew."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

import msgspec

from engine.attribution import blame
from engine.opinions import opinions, told
from engine.passage import asked, loses_large_only
from engine.path import stage_at, stages_of
from engine.plan import expected_legs
from engine.trains import BY_CHANCE
from facts import (
    Blame,
    Blind,
    Cause,
    Fact,
    Leg,
    Policy,
    PolicyAllows,
    PolicyOpinion,
    ProbeResult,
    Question,
    RuleDrop,
    Stop,
    in_turn,
    say,
)
from facts.firewall import CalicoFirewall

F = TypeVar("F", bound=Fact)

# What ends packets of every kind alike.
OF_EVERY_KIND = (
    "unknown_interface_from",
    "unknown_interface_to",
    "endpoint_down",
    "no_profile",
    "reverse_path",
    "vxlan_source",
    "ipip_source",
    "own_host",
)
NFTABLES = "nftables"
BY_POLICY = ("policy", "end_of_tier")
REFUSES_WITH = re.compile(r"--reject-with \S+|\breject with .*")
OF_FIRST_PACKETS = re.compile(r"\bsyn\b|--tcp-flags|\bct\s?state\s+new\b|--(?:ct)?state\s+NEW\b", re.IGNORECASE)
OF_ONE_KIND = re.compile(r"\b(?:icmp\w*|tcp|udp|sctp|[ds]ports?)\b| -p |\bl4proto\b|\bip protocol\b|\bnexthdr\b")


def stops(facts: Sequence[Fact]) -> list[Fact]:
    """The Blame of each RuleDrop, and a Stop for each leg whose packets of the asked kind it ended.

    facts: with the opinions. Of packets to a Service's own address, which is no leg's, there is a Blame alone.
    """
    dropped = _all(facts, RuleDrop)
    if not dropped:
        return []
    try:
        policies, legs, found = _all(facts, Policy), expected_legs(facts), list[Fact]()
        both, probes = _both_families(facts), _all(facts, ProbeResult)
        large = {leg.flow: loses_large_only(leg, probes) for leg in legs if leg.direction == "forward"}
        partly = {_place(drop) for drop in dropped if drop.partly}
        there = {(_place(drop), _ends(drop)) for drop in dropped if not drop.reply}
        back = {(_place(drop), _ends(drop)) for drop in dropped if drop.reply}
        for drop in dropped:
            of = blame(drop, policies)
            found.append(of)
            if drop.partly or (BY_CHANCE.search(drop.text) and _place(drop) in partly):
                continue  # packets of the kind pass: engine.trains says what that may be
            for leg in legs:
                by_size = any(_ended(drop, leg, one) for one in large.get(leg.flow, ()))
                rule = _place(drop), _ends(drop)
                if by_size and _about_first_packets(drop):
                    continue  # what large ones of TCP are sent as; those of a connection it may let pass
                if by_size and drop.reply and rule in there:
                    continue  # told with those it answers
                if by_size or _is_of(drop, leg, *asked(leg)):
                    stop = _stop(facts, both, leg, drop, of, large_only=by_size)
                    found.append(msgspec.structs.replace(stop, answers_too=by_size and not drop.reply and rule in back))
        return found
    except Exception as error:  # what was seen beside it must not be lost with it
        failed = say("naming what dropped packets failed: {error}", error=f"{type(error).__name__}: {error}")
        return [Blind(look="firewall", reason=failed, minor=True)]


def _place(drop: RuleDrop) -> tuple[str, str, str, str, int]:
    return drop.node, drop.backend, drop.table, drop.chain, drop.number


def _ends(drop: RuleDrop) -> frozenset[str]:
    return frozenset((drop.source_address, drop.target_address))


def stopped_for_size(facts: Sequence[Fact]) -> list[Fact]:
    """The facts, with full-size packets that a rule ended told from those that a narrow place lost."""
    stopped = {one.drop for one in _all(facts, Stop) if one.large_only}
    dropped = _all(facts, RuleDrop)
    rules = {(_place(one), _ends(one)) for one in dropped if one.id in stopped}
    drops = [one for one in dropped if (_place(one), _ends(one)) in rules]
    untold = [one for one in dropped if _about_first_packets(one)]
    found: list[Fact] = []
    for fact in facts:
        if isinstance(fact, ProbeResult) and fact.size:
            if fact.stalls and any(_explains(drop, fact) for drop in untold):
                fact = msgspec.structs.replace(fact, passes=0)  # it is not the size of a connection's packets
            elif any(_explains(drop, fact) for drop in drops):
                fact = msgspec.structs.replace(fact, by_rule=True)
        found.append(fact)
    return found


def _explains(drop: RuleDrop, large: ProbeResult) -> bool:
    """Did the rule end these, or does it end their like?"""
    ends = drop.source_address, drop.target_address
    if (large.source_address, large.target_address) != (ends[::-1] if drop.reply else ends):
        return False
    if large.protocol == drop.protocol:  # of pings it may have been the answers
        return large.protocol == "icmp" or large.answers == drop.reply
    return _about_any_kind(drop)


def _about_first_packets(drop: RuleDrop) -> bool:
    return drop.protocol == "tcp" and bool(OF_FIRST_PACKETS.search(f"{drop.text} {drop.marked_by}"))


def _ended(drop: RuleDrop, leg: Leg, large: ProbeResult) -> bool:
    """Are what the rule ended on this leg these full-size packets?"""
    return _is_of(drop, leg, large.protocol, large.port) and (not large.port or drop.reply == large.answers)


def _about_any_kind(drop: RuleDrop) -> bool:
    """As far as the rule's words say. One about a tunnel's packets does not know what is in them."""
    asks = REFUSES_WITH.sub("", drop.text)  # an answer by ICMP or TCP is no condition
    return drop.outer or not OF_ONE_KIND.search(f"{asks} {drop.marked_by}")


def behind(facts: Sequence[Fact], causes: Sequence[Cause]) -> str:
    """What the policies in the API will drop further on, once the packets pass the one that drops them now; "" where
    that is nothing, or where no policy is the cause."""
    stopped = {one.drop: one for one in _all(facts, Stop) if one.decisive and one.leg == "forward"}
    blames = {one.drop: one for one in _all(facts, Blame) if one.drop in stopped and one.what in BY_POLICY}
    cited = {one for cause in causes for one in cause.evidence}
    found: list[str] = []
    for drop in _all(facts, RuleDrop):
        if drop.id in blames and drop.id in cited:
            found += _further(facts, drop, stopped[drop.id], blames[drop.id])
    said = in_turn(dict.fromkeys(found))
    return say("Behind that, by the policies in the API: {said}", said=said) if said else ""


def _further(facts: Sequence[Fact], drop: RuleDrop, stop: Stop, of: Blame) -> list[str]:
    """Opinions stand in the order in which packets come to them."""
    on_the_way = [
        one
        for one in _all(facts, PolicyOpinion)
        if (one.flow, one.leg, one.protocol, one.port) == (stop.flow, stop.leg, drop.protocol, drop.port)
    ]
    here = [
        at
        for at, one in enumerate(on_the_way)
        if (one.node, one.endpoint_kind, one.direction, one.forward) == (of.node, of.endpoint, of.direction, of.forward)
    ]
    return [told(one) for one in on_the_way[here[0] + 1 :] if one.verdict == "deny"] if here else []


def _is_of(drop: RuleDrop, leg: Leg, protocol: str, port: int) -> bool:
    return (drop.source_address, drop.target_address, drop.protocol, drop.port, drop.reply) == (
        leg.source_address,
        leg.target_address,
        protocol,
        port,
        leg.direction == "reverse",
    )


def _both_families(facts: Sequence[Fact]) -> Sequence[Fact]:
    """The facts as if nobody had asked for one address family, with the opinions about both."""
    if not any(one.family for one in _all(facts, Question)):
        return facts
    wide = [msgspec.structs.replace(one, family=0) if isinstance(one, Question) else one for one in facts]
    return [*wide, *opinions(wide)]


def _stop(
    facts: Sequence[Fact], both: Sequence[Fact], leg: Leg, drop: RuleDrop, of: Blame, *, large_only: bool
) -> Stop:
    by_pings = large_only and drop.protocol == "icmp"
    passing = next((one for one in _all(facts, PolicyAllows) if (one.flow, one.leg) == (leg.flow, leg.direction)), None)
    filters = [one for one in _all(facts, CalicoFirewall) if (one.node, one.family) == (drop.node, leg.family)]
    return Stop(
        drop=drop.id,
        node=drop.node,
        flow=leg.flow,
        leg=leg.direction,
        stage=_stage(leg, drop, of),
        decisive=((leg.port_asked or leg.node_port > 0) and not by_pings) or _every_kind(drop, of, passing),
        opinion=next((one.verdict for one in _opinions(facts, leg, drop, of)), ""),
        allowed=passing.allowed if passing else (),
        forgets=tuple(dict.fromkeys(_forgets(both, leg, drop, of))),
        filters=tuple(name for one in filters for name in one.backends),
        large_only=large_only,
        empty=any(NFTABLES in one.entered and 0 in (one.from_pods, one.to_pods) for one in filters),
    )


def _every_kind(drop: RuleDrop, of: Blame, passing: PolicyAllows | None) -> bool:
    """Only pings were sent. Would packets of every kind have ended there?"""
    if of.what in BY_POLICY:
        return passing is not None and not passing.allowed and not passing.doubtful
    return of.what in OF_EVERY_KIND or _about_any_kind(drop)


def _stage(leg: Leg, drop: RuleDrop, of: Blame) -> str:
    """Where on the leg the rule stands."""
    if drop.pod or drop.device:
        return stage_at(leg, drop.node, drop.device, outer=drop.outer, pod=drop.pod)
    there = stages_of(leg)
    ends = [end for end, node in (("source", leg.source_node), ("target", leg.target_node)) if node == drop.node] or [
        "source"
    ]
    end = ends[-1] if drop.hook == "input" else ends[0]
    if (of.endpoint == "pod" or of.what.startswith("unknown_interface")) and of.what != "own_host":
        inward = of.direction == "ingress" or of.what == "unknown_interface_to"
        wanted = "target veth" if inward else "source veth"
    else:
        wanted = f"{end} tunnel" if drop.outer else f"{end} node"
    return next((one for one in (wanted, f"{end} node", "source node") if one in there), wanted)


def _opinions(facts: Sequence[Fact], leg: Leg, drop: RuleDrop, of: Blame) -> Iterator[PolicyOpinion]:
    """Of these packets at the endpoint whose policies were asked."""
    for one in _all(facts, PolicyOpinion):
        same = (one.flow, one.leg, one.node, one.protocol, one.port) == (
            leg.flow,
            leg.direction,
            drop.node,
            drop.protocol,
            drop.port,
        )
        if same and (one.endpoint_kind, one.direction, one.forward) == (of.endpoint, of.direction, of.forward):
            yield one


def _forgets(facts: Sequence[Fact], leg: Leg, drop: RuleDrop, of: Blame) -> Iterator[str]:
    """Of the policies that were consulted, those whose rule allows the same over the other family, and is none here
    because all networks in it are of the other."""
    if of.what != "end_of_tier":
        return
    consulted = {f"{one.kind} {_placed(one)}": one for one in _all(facts, Policy) if not one.staged}
    for twin in expected_legs(facts):
        same = (twin.source, twin.target, twin.direction, twin.family) == (
            leg.source,
            leg.target,
            leg.direction,
            10 - leg.family,
        )
        for said in _opinions(facts, twin, drop, of) if same else ():
            policy = consulted.get(f"{said.kind} {_placed(said)}")
            if said.verdict != "allow" or policy is None or f"{said.kind} {_placed(said)}" not in of.consulted:
                continue
            rule = (policy.ingress if said.direction == "ingress" else policy.egress)[said.rule - 1]
            sides = (rule.source.nets, rule.destination.nets)
            if any(nets and all((":" in net) == (leg.family == 4) for net in nets) for nets in sides):
                yield f"{said.kind} {_placed(said)}"


def _placed(one: Policy | PolicyOpinion) -> str:
    return f"{one.namespace}/{one.name}" if one.namespace else one.name


def _all(facts: Sequence[Fact], kind: type[F]) -> list[F]:
    return [fact for fact in facts if isinstance(fact, kind)]
