"""From single findings to one answer: echoes silenced, causes ordered, and never "healthy" about what was not seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from engine import ending_rules, large, passage, refused, routes_taken, rulebase, services, trains
from engine.bypass import bypasses
from engine.opinions import about_lost, opinions
from engine.order import depths, loses_at, place
from engine.path import paths
from engine.rule import HEALS_NEVER, CauseRule
from engine.sights import Track, spent, tracks
from engine.stops import behind, stopped_for_size, stops
from engine.untold import untold
from facts import (
    Allocation,
    Blind,
    CalicoNode,
    Cause,
    Diagnosis,
    Endpoint,
    Fact,
    FelixHealth,
    Flow,
    Leg,
    PodInterface,
    PodRoute,
    ProbeResult,
    Question,
    Stop,
    Text,
    in_turn,
    say,
)
from facts.verdict import SEVERITIES

OF_A_GATEWAY = "node_without_default_route"  # the failure mode that a pod without a default route cannot suffer from
FELIX_STUCK = "felix_stuck"  # the failure mode that makes every promise of a repair void
OBSTACLES = {
    "ebpf": "Calico's eBPF programs carry packets from {source} to {target}: neither their maps nor routes are judged, "
    "both pods' interfaces, IPAM and fresh packets are",
    "windows": "{source} or {target} is on a Windows node, into whose network nobody looks: what the API says and the "
    "other node are judged",
    "settings": "how packets travel from {source} to {target} depends on FelixConfiguration and on what calico-node is "
    "told (eBPF, WireGuard, VNI), of which not all could be read: both pods' interfaces and fresh packets are judged, "
    "routes are not",
    "driver": "Felix is told to leave the dataplane to somebody else (useInternalDataplaneDriver: false), such as VPP: "
    "what the API says is judged, the kernels' routes are not",
    "pools": "how packets travel from {source} to {target} depends on the IP pool of {target}, and the pools could not "
    "be read: both pods' interfaces and fresh packets are judged, routes are not",
    "pool": "no IP pool of Calico holds the address of {target}, so another plugin gives out addresses and carries "
    "packets to it: both pods' interfaces and fresh packets are judged, routes are not",
    "pool_gone": "no IP pool holds the address of {target} any more, although a block of Calico's IPAM does: the pool "
    "was deleted while pods had addresses of it. Calico then takes back the nodes' tunnel addresses, and nodes lose "
    "their routes to each other, until the pool is created again as it was: both pods' interfaces and fresh packets "
    "are judged, routes are not",
    "subnet": "how packets travel from {source} to {target} depends on their nodes' subnets, and annotation "
    "projectcalico.org/IPv4Address does not tell both",
    "node": "no annotation tells under which address the node {source} itself sends into its IPIP or WireGuard tunnel: "
    "its routes are not judged, fresh packets are",
}


def diagnose(facts: Sequence[Fact]) -> Diagnosis:
    """The verdict on everything seen for one question. Raises engine.rulebase.EngineFault when the engine fails."""
    rulebook = rulebase.load()
    rules = {rule.name: rule for rule in rulebook.rules if isinstance(rule, CauseRule)}
    judged = prepared(facts)
    evaluation = rulebook.evaluate(judged)
    unjudged = _unjudged(evaluation)
    legs = [fact for fact in evaluation.facts if isinstance(fact, Leg)]
    families = {leg.flow: leg.family for leg in legs}
    found = _without_echoes(_merged(evaluation.causes), rules, families)
    told, withheld = _told_apart(found, rules, unjudged, families)
    probes = [fact for fact in evaluation.facts if isinstance(fact, ProbeResult)]
    waiting = {fact.node for fact in facts if isinstance(fact, Endpoint) and fact.starting and not fact.addresses}
    told, spared = _of_one_family(told, rules, legs, probes)
    deciding = [leg for leg in legs if leg.direction == "forward" and leg.flow not in spared]
    lost = any(passage.loses(leg, probes) for leg in deciding) or trains.loses(deciding, evaluation.facts)
    if not lost and any(passage.sent(leg, probes) for leg in legs if leg.direction == "forward"):
        told = [cause for cause in told if not rules[cause.rule].silent_while_well]
    told = _last_resorts(told, rules, lost=lost, waiting=waiting)
    stuck = {cause.node for cause in told if cause.rule == FELIX_STUCK}
    followed = [track for way in ("", "there", "back") for track in tracks(legs, evaluation.facts, large=way)]
    followed += tracks(legs, evaluation.facts, later=True)
    ordered = _ordered(told, rules, followed)
    causes = [_with_felix(cause, rules[cause.rule], evaluation.facts, stuck) for cause in ordered]
    breaking = tuple(cause for cause in causes if cause.severity != "warns")
    warnings = tuple(cause for cause in causes if cause.severity == "warns")
    blind = _blind(evaluation, unjudged, withheld, breaking)
    well = _well(legs, probes, breaking, blind, evaluation.facts)
    if breaking:
        some_lost = services.lost(evaluation.facts) or trains.loses(deciding, evaluation.facts)
        despite = "" if some_lost else _probes_despite_cause(legs, probes, breaking)
        pings = trains.pings_beside(legs, evaluation.facts)
        told_beside = (services.answers(evaluation.facts), despite, pings, behind(judged, breaking))
        verdict, summary = "cause", in_turn(told_beside)
    elif legs:
        verdict, summary = services.judged(
            evaluation.facts,
            *_without_cause([leg for leg in legs if leg.flow not in spared], probes, blind, followed, evaluation.facts),
        )
    else:
        of_service = services.without_legs(evaluation.facts, blind)
        verdict, summary = of_service or ("unknown", _why_no_legs(evaluation.facts))
    if verdict == "unknown":
        blind = tuple(dict.fromkeys((*blind, *untold(judged, followed, blind))))
    return Diagnosis(
        verdict=verdict,
        question=next((fact for fact in facts if isinstance(fact, Question)), None),
        summary=summary,
        causes=breaking,
        warnings=warnings,
        checked=evaluation.checked,
        blind=blind,
        path=paths(legs, breaking, blind, well, followed, lost=verdict == "unknown"),
        facts=evaluation.facts,
    )


def prepared(facts: Sequence[Fact]) -> list[Fact]:
    """What the rules are given: the facts, and what no rule of theirs could bring together."""
    found = [*ending_rules.marked(facts), *opinions(facts)]
    found = large.marked(stopped_for_size([*found, *stops(found), *bypasses(found)]))
    return [*found, *trains.losses(found), *large.losses(found)]


def _merged(causes: Iterable[Cause]) -> list[Cause]:
    """One cause where both legs, both pods or several flows found the same wrong thing, as bad as for the worst off."""
    found: dict[tuple[str, str, str], Cause] = {}
    for cause in sorted(causes, key=lambda one: SEVERITIES.index(one.severity)):
        same = found.setdefault((cause.rule, cause.node, cause.text), cause)
        if same.flow != cause.flow:
            found[cause.rule, cause.node, cause.text] = msgspec.structs.replace(same, flow="")
    return list(found.values())


def _without_echoes(causes: Sequence[Cause], rules: dict[str, CauseRule], families: Mapping[str, int]) -> list[Cause]:
    def is_echo(cause: Cause) -> bool:
        rule = rules[cause.rule]
        return any(
            (other.rule in rule.after and other.node == cause.node)
            or (other.rule in rule.after_peer and other.node != cause.node)
            for other in causes
            if (other.severity != "warns" or cause.severity == "warns")
            and _may_concern(other.flow, cause.flow, families)
        )

    return [cause for cause in causes if not is_echo(cause)]


def _may_concern(one: str, other: str, families: Mapping[str, int]) -> bool:
    """Can what is wrong with one flow bring about what is wrong with the other? Not across families: each has devices
    and routes of its own. "" is of every flow."""
    return not one or not other or families.get(one) == families.get(other)


def _of_one_family(
    causes: Sequence[Cause], rules: dict[str, CauseRule], legs: Sequence[Leg], probes: Sequence[ProbeResult]
) -> tuple[list[Cause], set[str]]:
    """What is no harm where the same ends speak over the other family becomes a warning; with the flows it is about,
    which then decide nothing."""
    forward = [leg for leg in legs if leg.direction == "forward"]
    spoken = {
        (leg.source, leg.target, leg.family)
        for leg in forward
        if passage.wanted(leg, probes) and not passage.loses(leg, probes)
    }
    spared = {
        leg.flow
        for leg in forward
        if (leg.source, leg.target, 10 - leg.family) in spoken
        and any(rules[cause.rule].one_family_suffices and cause.flow == leg.flow for cause in causes)
    }
    return [
        msgspec.structs.replace(cause, severity="warns")
        if rules[cause.rule].one_family_suffices and cause.flow in spared
        else cause
        for cause in causes
    ], spared


def _last_resorts(
    causes: Sequence[Cause], rules: dict[str, CauseRule], *, lost: bool, waiting: set[str]
) -> list[Cause]:
    """What stops no packet by itself is a warning where no packet is lost, or where something else explains it.

    waiting: nodes on which an asked pod is still to be created.
    """
    explaining = [cause for cause in causes if cause.severity != "warns" and not rules[cause.rule].last_resort]
    broken = {cause.flow for cause in explaining if cause.severity == "breaks"}
    return [
        msgspec.structs.replace(cause, severity="warns")
        if rules[cause.rule].last_resort and (explaining or not (lost or cause.node in waiting))
        else cause
        for cause in causes
        if not (rules[cause.rule].silent_where_explained and broken & {cause.flow, ""})
    ]


def _ordered(causes: list[Cause], rules: dict[str, CauseRule], followed: Sequence[Track]) -> list[Cause]:
    """As a person should work through them: breaking first, then what the whole cluster suffers from, what is where
    packets were seen to get lost, the way there before the way back, what other failures can follow from, the path."""

    if len(causes) < 2:
        return causes
    depth = depths(rules.values())

    def key(cause: Cause) -> tuple[int, bool, bool, bool, int, int, str, str]:
        return (
            SEVERITIES.index(cause.severity),
            cause.node != "",
            not any(loses_at(track, cause) for track in followed),
            cause.leg == "reverse",
            depth[cause.rule],
            place(cause.stage),
            cause.rule,
            cause.node,
        )

    return sorted(causes, key=key)


def _with_felix(cause: Cause, rule: CauseRule, facts: Sequence[Fact], stuck: set[str]) -> Cause:
    """What Felix will do about it and when (calico_truth.md 2). stuck: nodes where it lives and gets nothing done."""
    if cause.heals_within_s < HEALS_NEVER:
        return cause
    if cause.heals_within_s == HEALS_NEVER:
        return msgspec.structs.replace(cause, felix=say("Felix does not repair this."))
    health = next((fact for fact in facts if isinstance(fact, FelixHealth) and fact.node == cause.node), None)
    node, seconds = cause.node, cause.heals_within_s
    if rule.healed_by_monitor:
        told = say(
            "calico-node on {node} looks at its address every {seconds} s and writes it again, unless it was told the "
            "address or is not there.",
            node=node,
            seconds=seconds,
        )
        return msgspec.structs.replace(cause, felix=told)
    unasked = any(isinstance(one, CalicoNode) and one.name == node and not one.felix_health for one in facts)
    if health is None or (unasked and not health.reachable):
        felix = say(
            "A living Felix repairs this within {seconds} s; whether it lives on {node} could not be seen.",
            seconds=seconds,
            node=node,
        )
    elif node in stuck:
        felix = say("Felix on {node} is stuck: it may not repair this.", node=node)
    elif health.reachable and health.ready:
        felix = say(
            "Felix on {node} is alive: it repairs this within {seconds} s. If it is still wrong then, look at Felix.",
            node=node,
            seconds=seconds,
        )
    elif health.reachable:
        felix = say(
            "Felix on {node} is not ready ({why}): it may not repair this.",
            node=node,
            why=health.detail or say("readiness fails"),
        )
    else:
        felix = say("Felix on {node} does not answer its health port: nothing repairs this by itself.", node=node)
    return msgspec.structs.replace(cause, felix=felix)


@dataclass(frozen=True)
class Unjudged:
    """A rule that could not say whether its failure mode is there, on this node and leg ("" for an endpoint)."""

    rule: CauseRule
    node: str
    flow: str
    leg: str
    nodes: frozenset[str]  # both ends of its leg: what is judged on one may rest on what was to be seen on the other


def _unjudged(evaluation: rulebase.Evaluation) -> list[Unjudged]:
    found = []
    own = {(one.pod, one.destination): one for one in evaluation.facts if isinstance(one, PodRoute)}
    inside = {(one.pod, one.family): one for one in evaluation.facts if isinstance(one, PodInterface) and one.entered}
    for rule, anchor in evaluation.unjudged:
        if rule.name == OF_A_GATEWAY and isinstance(anchor, Leg):
            route = own.get((anchor.source, anchor.target_address))
            pod = inside.get((anchor.source, anchor.family))
            if route and route.found and pod and not pod.pod_default_next_hop:
                continue  # it was told which routes to have, and has one to the target
        alias, _ = rule.patterns[0]
        node = getattr(anchor, rule.at.field) if rule.at is not None and rule.at.alias == alias else ""
        if isinstance(anchor, Leg):
            both = frozenset({anchor.source_node, anchor.target_node})
            found.append(Unjudged(rule, node, anchor.flow, anchor.direction, both))
        else:
            found.append(Unjudged(rule, node, "", "", frozenset({node})))
    return found


def _told_apart(
    causes: Sequence[Cause], rules: dict[str, CauseRule], unjudged: Sequence[Unjudged], families: Mapping[str, int]
) -> tuple[list[Cause], list[Blind]]:
    """The causes that cannot be the echo of something nobody could judge; the others as what they leave unsure."""
    told, withheld = [], []
    for cause in causes:
        rule = rules[cause.rule]
        hidden = [
            one
            for one in unjudged
            if (one.node or one.rule.at is None)
            and _may_concern(one.flow, cause.flow, families)
            and (
                (one.rule.name in rule.after and one.node == cause.node)
                or (one.rule.name in rule.after_peer and one.node != cause.node)
            )
            and not any(root.rule in one.rule.after and root.node == one.node for root in causes)
        ]
        if not hidden:
            told.append(cause)
        for one in hidden:
            finding = cause.message or cause.text
            reason = say("could not be judged, so this may be its echo: {finding}", finding=finding)
            minor = cause.severity == "warns"
            withheld.append(Blind(node=one.node, look=one.rule.name, reason=reason, minor=minor))
    return told, withheld


def _blind(
    evaluation: rulebase.Evaluation, unjudged: Sequence[Unjudged], withheld: Sequence[Blind], causes: Sequence[Cause]
) -> tuple[Blind, ...]:
    """What could not be seen: as reported, every rule that had nothing to judge by, and ways that nobody can know."""
    reported = [*(one for one in evaluation.facts if isinstance(one, Blind)), *evaluation.blind, *withheld]
    found = [
        *reported,
        *_nothing_to_judge(unjudged, reported, causes),
        *_obstacles(evaluation.facts),
        *_own_kernels(evaluation.facts, causes),
        *_unknown_ways(evaluation.facts),
    ]
    return tuple(dict.fromkeys(found))


def _nothing_to_judge(
    unjudged: Sequence[Unjudged], reported: Sequence[Blind], causes: Sequence[Cause]
) -> Iterator[Blind]:
    """A rule is left out where a node of its leg is reported blind, or where a cause explains why there is nothing to
    judge: a device that is missing has no MAC."""
    nodes = {blind.node for blind in reported if not blind.minor}
    for one in unjudged:
        explained = any(
            cause.node == one.node or (cause.leg in (one.leg, "both") and cause.flow in (one.flow, ""))
            for cause in causes
        )
        if one.leg and not one.nodes & nodes and not explained:
            reason = say(
                "nothing was seen to judge this by on the forward leg"
                if one.leg == "forward"
                else "nothing was seen to judge this by on the reverse leg"
            )
            yield Blind(node=one.node, look=one.rule.name, reason=reason, minor=one.rule.severity == "warns")


def _obstacles(facts: Sequence[Fact]) -> Iterator[Blind]:
    for leg in facts:
        if isinstance(leg, Leg) and leg.obstacle:
            reason = say(OBSTACLES[leg.obstacle], source=leg.source, target=leg.target)
            yield Blind(node=leg.source_node, look="encapsulation", reason=reason)


def _unknown_ways(facts: Sequence[Fact]) -> Iterator[Blind]:
    joined = {leg.flow for leg in facts if isinstance(leg, Leg)}
    for flow in facts:
        if isinstance(flow, Flow) and joined and flow.name not in joined:
            yield Blind(
                look="path", reason=say("what is known of {flow} is not enough to tell its way", flow=flow.name)
            )


def _own_kernels(facts: Sequence[Fact], causes: Sequence[Cause]) -> Iterator[Blind]:
    """What is sent from the namespace of such a pod need not tell what becomes of its own packets."""
    sandboxes = {one.name for one in facts if isinstance(one, Endpoint) and one.own_kernel}
    for one in facts:
        if isinstance(one, PodInterface) and one.entered and one.pod in sandboxes and not _addressed(one):
            reason = say(
                "{pod} has a kernel of its own (a virtual machine, a sandbox), and its namespace no address: what is "
                "sent from there does not come from {pod}, and what {pod} itself does was not seen",
                pod=one.pod,
            )
            yield Blind(node=one.node, look="pod", reason=reason)
    probes = [one for one in facts if isinstance(one, ProbeResult)]
    for leg in facts:
        if not isinstance(leg, Leg) or leg.direction != "forward" or leg.source not in sandboxes or causes:
            continue
        if passage.loses(leg, probes):
            reason = say(
                "{pod} has a kernel of its own (a virtual machine, a sandbox), which may take the answers to what is "
                "sent from its namespace: that these are lost does not tell what becomes of its own packets",
                pod=leg.source,
            )
            yield Blind(node=leg.source_node, look="pod", reason=reason)


def _addressed(pod: PodInterface) -> bool:
    return bool(pod.pod_holder) or any(not one.startswith("fe80:") for one in pod.pod_addresses)


def _well(
    legs: Sequence[Leg],
    probes: Sequence[ProbeResult],
    causes: Sequence[Cause],
    blind: Sequence[Blind],
    facts: Sequence[Fact],
) -> set[str]:
    """The flows nothing is wrong with, whatever others suffer from."""
    hurt = {cause.flow for cause in causes}
    if "" in hurt:
        return set()
    forward = [leg for leg in legs if leg.direction == "forward" and leg.flow not in hurt]
    return {
        leg.flow for leg in forward if passage.judged(leg, probes, blind)[0] == "healthy" and not _doubtful(leg, facts)
    }


def _without_cause(
    legs: Sequence[Leg],
    probes: Sequence[ProbeResult],
    blind: Sequence[Blind],
    followed: Sequence[Track],
    facts: Sequence[Fact],
) -> tuple[str, str]:
    """The verdict of all flows together: healthy when each is. The summary names the flows only where there are two."""
    forward = [leg for leg in legs if leg.direction == "forward"]
    verdicts = [_judged(leg, probes, blind, followed, facts) for leg in forward]
    worst = [one for one in zip(verdicts, forward, strict=True) if one[0][0] == "unknown"]
    told = worst or list(zip(verdicts, forward, strict=True))
    if len(forward) == 1:
        return verdicts[0]
    summaries = [say("{flow}: {summary}", flow=_flow_name(leg, forward), summary=text) for (_, text), leg in told]
    return told[0][0][0], in_turn(summaries)


def _judged(
    leg: Leg,
    probes: Sequence[ProbeResult],
    blind: Sequence[Blind],
    followed: Sequence[Track],
    facts: Sequence[Fact],
) -> tuple[str, str]:
    """Of one flow; where its packets are lost with the place they were seen last, and what the policies say of them."""
    stopped = any(isinstance(one, Stop) and one.flow == leg.flow and not one.decisive for one in facts)
    verdict, summary = passage.judged(leg, probes, blind, pings_stopped=stopped)
    doubtful = verdict == "healthy" and _doubtful(leg, facts)
    seen, policies = [], ""
    if passage.loses(leg, probes):
        seen = [track.told or "" for track in followed if track.leg.flow == leg.flow]
        seen += [spent(leg, facts), refused.though_listened(leg, facts)]
        seen += [passage.objections(leg, probes), passage.silent_node(leg, probes, blind)]
        seen += [routes_taken.told(leg, facts), ending_rules.told(leg, facts)]
        policies = in_turn((about_lost(facts, leg), passage.dropped(leg, facts)))
    elif doubtful:
        policies = passage.dropped(leg, facts)
    elif verdict == "unknown" and not passage.sent(leg, probes):
        seen.append(passage.silent_node(leg, probes, blind))
    seen += [trains.told_first(leg, facts), trains.told(leg, facts)]
    return "unknown" if doubtful else verdict, in_turn((summary, *seen, policies))


def _doubtful(leg: Leg, facts: Sequence[Fact]) -> bool:
    return trains.doubtful(leg, facts) or large.unproved(leg, facts)


def _flow_name(leg: Leg, forward: Sequence[Leg]) -> str:
    """What tells the flow from the others: its family, its target, or both."""
    family = f"IPv{leg.family}" if len({one.family for one in forward}) > 1 else ""
    target = leg.target if len({one.target for one in forward}) > 1 else ""
    return " ".join(filter(None, (target, family)))


def _probes_despite_cause(legs: Sequence[Leg], probes: Sequence[ProbeResult], causes: Sequence[Cause]) -> str:
    """A finding with all packets passing is told as it is: a detour, something that just healed, or another flow."""
    asked = [one for leg in legs if leg.direction == "forward" for one in passage.sent(leg, probes)]
    if not asked or not all(passage.all_answered(one) for one in asked):
        return ""
    forward = next(leg for leg in legs if leg.direction == "forward")
    met = passage.told(asked)
    if all(cause.leg == "reverse" and cause.severity == "degrades" for cause in causes):
        return say(
            "Fresh packets from {source} pass all the same ({met}): what was found concerns those that {target} sends "
            "by itself.",
            source=forward.source,
            met=met,
            target=forward.target,
        )
    return say(
        "Fresh packets from {source} pass all the same ({met}): a detour, or it has just changed.",
        source=forward.source,
        met=met,
    )


def _why_no_legs(facts: Sequence[Fact]) -> Text:
    """Which piece of the question could not be brought together."""
    question = next((fact for fact in facts if isinstance(fact, Question)), None)
    names = (question.source, question.target) if question else ()
    endpoints = {fact.name: fact for fact in facts if isinstance(fact, Endpoint)}
    nodes = {fact.name for fact in facts if isinstance(fact, CalicoNode)}
    allocated = {fact.address for fact in facts if isinstance(fact, Allocation)}
    for name in names:
        endpoint = endpoints.get(name)
        if endpoint is None:
            return say("What {name} is could not be seen.", name=name)
        if endpoint.kind == "service":
            return say("{name} is a Service without an endpoint that could be asked about.", name=name)
        if endpoint.kind == "nobody":
            return say("No pod and no node has {name}, which is an address of an IP pool.", name=name)
        if endpoint.kind == "address":
            continue
        if not endpoint.node:
            return say("{name} is not scheduled to a node yet.", name=name)
        if not endpoint.addresses:
            return say(
                "{name} has no address yet ({phase}: {reason})." if endpoint.reason else "{name} has no address yet.",
                name=name,
                phase=endpoint.phase,
                reason=endpoint.reason,
            )
        if endpoint.node not in nodes:
            return say("What Calico says about node {node} of {name} could not be read.", node=endpoint.node, name=name)
        pod = endpoint.kind == "pod" and not endpoint.host_network
        unknown = [one for one in endpoint.addresses if pod and one not in allocated]
        if unknown:
            return say("What IPAM says about {address} of {name} could not be read.", address=unknown[0], name=name)
    if len(names) == 2 and not any(isinstance(fact, Flow) for fact in facts):
        return say("{source} and {target} have no address of the same family.", source=names[0], target=names[1])
    return say("The settings of Calico could not be read.")
