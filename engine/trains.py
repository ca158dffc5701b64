"""Trains of packets: when they are worth sending, what they tell; without them a loss of one in ten would be luck."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise

import msgspec

from engine import passage
from engine.dropped import rule_of
from engine.path import stages_of
from engine.plan import expected_legs, following
from engine.sights import Step, steps
from facts import (
    Blame,
    CalicoNode,
    Fact,
    Leg,
    LocalPod,
    NodeAsk,
    ProbeResult,
    RuleDrop,
    SendProbe,
    Text,
    Train,
    TrainLoss,
    in_turn,
    say,
)

COUNT, EVERY_MS = 50, 2  # one in ten is lost of both trains, and three more, in 98 of 100 tries
PINGS = 10  # beside connections
PATIENCE_MS = 300  # a kernel sends an unanswered SYN again after a second: that one would hide the loss
DEADLINE_MS = 4000
MOST_FLOWS = 2  # of one node: each is up to two trains, of twice COUNT packets and those sent again
SEVERAL, ONE_IN = 4, 50  # lost ones of both trains: fewer of so many may be lost anywhere
MOST = 0.75  # of what is missing must be missing between two places
BY_CHANCE = re.compile(r"--mode (?:random|nth)|\b(?:numgen|statistic|jhash|symhash|random)\b")
ON_THE_WAY = ("loss", "rule")  # of facts.reachability.LOST_BY
LIMITS = re.compile(r"\b(?:limit|hashlimit|connlimit|meter|quota|recent|ct count)\b")


def trains(known: Sequence[Fact], seen: Sequence[Fact]) -> list[NodeAsk]:
    """What to ask once more where some fresh packets of one kind came back and others did not: trains of them, met at
    the devices of both ends. One ask a node and family."""
    probes = [fact for fact in seen if isinstance(fact, ProbeResult)]
    forward = [leg for leg in expected_legs(known) if leg.direction == "forward"]
    partly = [
        leg
        for leg in forward
        if any(_partly(one) for one in passage.sent(leg, probes)) or any(_partly_back(one) for one in of(leg, seen))
    ]
    sends = {(ask.node, ask.family): ask for ask in _asks(known, partly, COUNT)}
    some = [leg for _, group in _by_sender(partly) for leg in group[:MOST_FLOWS]]
    return [_with_trains(ask, sends.get((ask.node, ask.family))) for ask in following(known, some)]


def _with_trains(ask: NodeAsk, sends: NodeAsk | None) -> NodeAsk:
    """ask: follows single packets of these flows."""
    followed = [
        msgspec.structs.replace(
            one,
            protocol="tcp" if one.protocol == "tcp" else "icmp",
            port=one.port if one.protocol == "tcp" else 0,
            count=0,
            train=True,
        )
        for one in ask.trace
    ]
    return msgspec.structs.replace(
        ask,
        send=sends.send if sends else (),
        local_pods=tuple(dict.fromkeys((*ask.local_pods, *(sends.local_pods if sends else ())))),
        trace=tuple(dict.fromkeys(followed)),
        patience_ms=PATIENCE_MS,
        deadline_ms=DEADLINE_MS,
    )


def watching(known: Sequence[Fact], count: int) -> list[NodeAsk]:
    """What to ask again and again of flows that are watched: twice `count` packets of each kind, and of UDP, where a
    server may have to think, a few."""
    return _asks(known, expected_legs(known), count)


def _partly(one: ProbeResult) -> bool:
    return 0 < one.answered < one.sent


def _partly_back(one: Train) -> bool:
    return 0 < one.back < one.sent


def _by_sender(legs: Sequence[Leg]) -> Iterator[tuple[tuple[str, int], list[Leg]]]:
    def sender(leg: Leg) -> tuple[str, int]:
        return leg.source_node, leg.family

    for key, group in groupby(sorted(legs, key=sender), key=sender):
        yield key, list(group)


def _asks(known: Sequence[Fact], legs: Sequence[Leg], count: int) -> list[NodeAsk]:
    nodes = {(fact.name, fact.family): fact for fact in known if isinstance(fact, CalicoNode)}
    forward = [leg for leg in legs if leg.direction == "forward" and (leg.source_node, leg.family) in nodes]
    found = []
    for (name, family), group in _by_sender(forward):
        some = group[:MOST_FLOWS]
        pods = [
            LocalPod(name=leg.source, address=leg.source_address, interface=leg.source_interface)
            for leg in some
            if leg.source_kind == "pod"
        ]
        found.append(
            NodeAsk(
                node=name,
                family=family,
                felix=False,
                read=False,
                tunnel_device="",
                uplink_address=nodes[name, family].address,
                local_pods=tuple(dict.fromkeys(pods)),
                send=tuple(dict.fromkeys(one for leg in some for one in _kinds(leg, count))),
                patience_ms=PATIENCE_MS,
            )
        )
    return found


def _kinds(leg: Leg, count: int) -> list[SendProbe]:
    """Pings, and connections where a TCP port was asked: a kernel or a router may choose their way by their ports."""
    pod = leg.source if leg.source_kind == "pod" else ""
    by_tcp = leg.port_asked and leg.protocol == "tcp"
    ping = SendProbe(
        pod=pod,
        target=leg.target_address,
        protocol="icmp",
        count=min(count, PINGS) if by_tcp else count,
        every_ms=EVERY_MS,
    )
    if not leg.port_asked:
        return [ping]
    asked = SendProbe(pod=pod, target=leg.target_address, protocol=leg.protocol, port=leg.port)
    return [ping, msgspec.structs.replace(asked, count=count, every_ms=EVERY_MS) if by_tcp else asked]


def of(leg: Leg, facts: Sequence[Fact]) -> list[Train]:
    """The trains that went from one end of the leg to the other."""
    pod = leg.source if leg.source_kind == "pod" else ""
    return [
        one
        for one in facts
        if isinstance(one, Train)
        and (one.node, one.pod, one.target_address) == (leg.source_node, pod, leg.target_address)
    ]


def lossy(train: Train) -> bool:
    """Does it show that packets are lost now and then? Only where both trains lost some, together more than may be lost
    anywhere, and both brought others back."""
    lost, lost_again = train.sent - train.back, train.sent_again - train.back_again
    enough = train.lost >= max(SEVERAL, (train.sent + train.sent_again) / ONE_IN)
    return min(lost, lost_again) > 0 and enough and min(train.back, train.back_again) > 0


def decides(train: Train, leg: Leg) -> bool:
    """Is it of the asked kind? Pings are, where no TCP port was asked."""
    return train.protocol == ("tcp" if leg.port_asked and leg.protocol == "tcp" else "icmp")


def losses(facts: Sequence[Fact]) -> list[Fact]:
    """A TrainLoss for each leg whose trains of the asked kind lost packets: one that is lost, and none of many that are
    sent after it, may be lost anywhere.

    facts: with the Blame of each RuleDrop.
    """
    legs = expected_legs(facts)
    backs = {leg.flow: leg for leg in legs if leg.direction == "reverse"}
    blames = {one.drop: one for one in facts if isinstance(one, Blame)}
    found: list[Fact] = []
    for leg in legs:
        if leg.direction != "forward" or leg.flow not in backs:
            continue
        asked = [one for one in of(leg, facts) if decides(one, leg) and not _limited(one, leg)]
        first = next((one for one in asked if one.once), None)
        for one in asked:
            loss = TrainLoss(
                train=one.id,
                flow=leg.flow,
                leg="forward",
                node=leg.source_node,
                why="loss",
                sent=one.sent + one.sent_again + (first.sent if first else 0),
                lost=one.lost + (first.lost if first else 0),
            )
            if lossy(one):
                found.append(_placed(loss, one, leg, backs[leg.flow], facts, blames))
    return found


def _limited(train: Train, leg: Leg) -> bool:
    """May it be answered only so often in a second? By nodes pings are, and from outside of the cluster all."""
    return leg.target_kind == "outside" or (leg.target_kind == "node" and train.protocol == "icmp")


def _placed(
    loss: TrainLoss,
    train: Train,
    forward: Leg,
    back: Leg,
    facts: Sequence[Fact],
    blames: Mapping[str, Blame],
) -> TrainLoss:
    """The same with why, and where."""
    way = steps(forward, back, facts)
    missing = train.lost + train.retried - train.retried_back
    gap = _gap(way, missing)
    rules = [one for one in facts if isinstance(one, RuleDrop) and one.partly and _ends(one, forward, train)]
    rule = max(rules, key=lambda one: one.packets, default=None)
    if rule and _may_be_its(rule, gap, missing):
        text = f"{rule.text} {rule.marked_by}"
        limit = (rule.id in blames and blames[rule.id].what == "limit") or bool(LIMITS.search(text))
        by_chance = train.same_lost_again or bool(BY_CHANCE.search(text))
        of_pings = forward.port_asked and train.protocol == "icmp" and "icmp" in text  # and they were not asked about
        why = "limit" if limit else "rule" if by_chance and not of_pings else "some_rule"
        direction = "reverse" if rule.reply else "forward"
        named = rule_of(rule).message
        return msgspec.structs.replace(loss, leg=direction, node=rule.node, why=why, drop=rule.id, rule=named)
    if gap is None:
        sent = train.sent + train.sent_again + train.retried
        home = bool(way) and (way[-1].leg, way[-1].stage) == (back, stages_of(back)[-2])
        # Where nobody looked before they were lost, as many came home as were met first.
        most = missing * (1 - MOST)
        everywhere = home and sent - way[0].packets < most and way[0].packets - way[-1].packets < most
        return msgspec.structs.replace(loss, why="nobody") if everywhere else loss
    last, behind = gap
    turned = [(one.leg, one.stage) == (forward, _end(forward)) or one.leg is back for one in gap]
    beyond = behind.leg is back and turned == [False, True]  # the other end lies between
    return msgspec.structs.replace(
        loss,
        leg=behind.leg.direction,
        node=forward.source_node if beyond else _node(behind) if _node(last) == _node(behind) else _node(last),
        stage="" if beyond else _lost_in(last, behind),
        why="target" if _did_not_answer(forward, last, behind) else "loss",
        where=last.where,
        device=last.device,
        met=last.packets,
        answers={(False, True): "next", (True, True): "both"}.get((turned[0], turned[1]), ""),
        next_where=behind.where,
        next_device=behind.device,
        next_met=behind.packets,
    )


def _ends(drop: RuleDrop, forward: Leg, train: Train) -> bool:
    ends = (forward.source_address, forward.target_address)
    met = (drop.target_address, drop.source_address) if drop.reply else (drop.source_address, drop.target_address)
    return met == ends and (drop.protocol, drop.port) == (train.protocol, train.port)


def _gap(way: Sequence[Step], missing: int) -> tuple[Step, Step] | None:
    """The two places between which nearly all that is missing was lost; None where there are none."""
    gaps = (pair for pair in pairwise(way) if pair[0].packets - pair[1].packets >= max(SEVERAL, missing * MOST))
    return next(gaps, None)


def _may_be_its(rule: RuleDrop, gap: tuple[Step, Step] | None, missing: int) -> bool:
    """Can the rule be what loses them? Not where nearly all of them are lost between two other places, nor where it
    ended only a few."""
    if gap is None or rule.packets >= missing * MOST:
        return rule.packets >= missing * (1 - MOST)
    last, behind = gap
    if last.leg is not behind.leg:
        return True
    of_leg = rule.reply == (behind.leg.direction == "reverse")
    return of_leg and _lost_in(last, behind) != "underlay" and rule.node in (_node(last), _node(behind))


def _did_not_answer(forward: Leg, last: Step, behind: Step) -> bool:
    """Were they met right before their end, and no answers of it?"""
    stages = stages_of(forward)
    return last.leg is forward and (behind.leg, behind.stage) == (forward, stages[-1]) and last.stage == stages[-2]


def _end(leg: Leg) -> str:
    return "target pod" if leg.target_kind == "pod" else "target node"


def _node(step: Step) -> str:
    """On which it was looked at."""
    return step.leg.source_node if step.stage.startswith("source") else step.leg.target_node


def _lost_in(last: Step, behind: Step) -> str:
    """The stage between both; "" where there are several, because nobody looked at one."""
    stages = stages_of(behind.leg)
    at = stages.index(behind.stage)
    if last.leg is behind.leg:
        return behind.stage if stages.index(last.stage) == at - 1 else ""
    return behind.stage if at == 1 else ""  # the stage before it, "source pod", is where the other leg ended


def loses(legs: Sequence[Leg], facts: Sequence[Fact]) -> bool:
    """Did trains of the asked kind lose packets of any of these flows, on the way and not by a limit?"""
    flows = {leg.flow for leg in legs}
    return any(isinstance(one, TrainLoss) and one.why in ON_THE_WAY and one.flow in flows for one in facts)


def doubtful(leg: Leg, facts: Sequence[Fact]) -> bool:
    """Were so many packets of the asked kind lost that nobody can call the leg well, though others passed?

    What a limit of so many in a second does, or a pod that answers not all pings, is told beside.
    """
    asked = [one for one in of(leg, facts) if decides(one, leg) and _some_back(one)]
    known = [one.why for one in facts if isinstance(one, TrainLoss) and one.flow == leg.flow]
    if known:
        pings = all(one.protocol == "icmp" for one in asked)
        return any(why != "limit" and not (why == "target" and pings) for why in known)
    first, again = [one for one in asked if one.once], [one for one in asked if not one.once]
    if any(one.lost for one in again):
        return True
    lost = sum(one.lost for one in first)
    return lost > 1 or (lost == 1 and not again)


def _some_back(one: Train) -> bool:
    return one.back > 0


def told_first(leg: Leg, facts: Sequence[Fact]) -> str:
    """What became of the packets that were sent at once in the beginning; "" where none of them was lost."""
    return in_turn(
        say(
            "Of {sent} more packets ({packets}) that were sent beside them {lost} were lost.",
            sent=one.sent,
            packets=kind(one),
            lost=one.lost,
        )
        for one in of(leg, facts)
        if one.once and one.lost and decides(one, leg)
    )


def told(leg: Leg, facts: Sequence[Fact]) -> str:
    """What became of the packets that were sent after some were lost; "" where none were."""
    return in_turn(
        say(
            "Of {sent} packets sent after that ({packets}) {lost} were lost.",
            sent=one.sent + one.sent_again,
            packets=kind(one),
            lost=one.lost,
        )
        for one in of(leg, facts)
        if not one.once
    )


def pings_beside(legs: Sequence[Leg], facts: Sequence[Fact]) -> str:
    """What became of pings where connections are lost now and then: whether all packets suffer, or those with ports."""
    forward = [leg for leg in legs if leg.direction == "forward"]
    lossy_legs = [leg for leg in forward if any(lossy(one) and decides(one, leg) for one in of(leg, facts))]
    return in_turn(
        say("Of {sent} pings sent meanwhile {lost} were lost.", sent=one.sent + one.sent_again, lost=one.lost)
        for leg in lossy_legs
        for one in of(leg, facts)
        if one.protocol == "icmp" and not one.once and not decides(one, leg)
    )


def kind(train: Train) -> str:
    """`tcp 5432`, `icmp`."""
    return f"{train.protocol} {train.port}" if train.port else train.protocol


def share(train: Train) -> Text:
    """`tcp 5432: 7 of 20 packets in a first train and 9 of 20 in a second`."""
    return say(
        "{packets}: {lost} of {sent} in a first train and {again} of {second} in a second one",
        packets=kind(train),
        lost=train.sent - train.back,
        sent=train.sent,
        again=train.sent_again - train.back_again,
        second=train.sent_again,
    )
