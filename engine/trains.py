"""Trains of packets: when they are worth sending, what they tell; without them a loss of one in ten would be luck."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from engine import passage
from engine.plan import expected_legs
from facts import CalicoNode, Fact, Leg, LocalPod, NodeAsk, ProbeResult, SendProbe, Text, Train, in_turn, say

COUNT, EVERY_MS = 20, 5
PATIENCE_MS = 500  # a kernel sends an unanswered SYN again after a second: that one would hide the loss
MOST_FLOWS = 2  # of one node: each is up to two trains, of twice COUNT packets and those sent again
SEVERAL = 2  # lost ones of a train: one may be lost anywhere, once


def trains(known: Sequence[Fact], seen: Sequence[Fact]) -> list[NodeAsk]:
    """What to ask once more where some fresh packets of one kind came back and others did not. One ask a node."""
    probes = [fact for fact in seen if isinstance(fact, ProbeResult)]
    expected = expected_legs(known)
    partly = {leg.flow for leg in expected if any(_partly(one) for one in passage.sent(leg, probes))}
    return _asks(known, [leg for leg in expected if leg.flow in partly], COUNT)


def watching(known: Sequence[Fact], count: int) -> list[NodeAsk]:
    """What to ask again and again of flows that are watched: twice `count` packets of each kind, and of UDP, where a
    server may have to think, a few."""
    return _asks(known, expected_legs(known), count)


def _partly(one: ProbeResult) -> bool:
    return 0 < one.answered < one.sent


def _asks(known: Sequence[Fact], legs: Sequence[Leg], count: int) -> list[NodeAsk]:
    nodes = {(fact.name, fact.family): fact for fact in known if isinstance(fact, CalicoNode)}
    forward = [leg for leg in legs if leg.direction == "forward" and (leg.source_node, leg.family) in nodes]
    found = []
    for (name, family), group in groupby(
        sorted(forward, key=lambda leg: (leg.source_node, leg.family)), key=lambda leg: (leg.source_node, leg.family)
    ):
        some = list(group)[:MOST_FLOWS]
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
    every = {"count": count, "every_ms": EVERY_MS}
    ping = SendProbe(pod=pod, target=leg.target_address, protocol="icmp", **every)
    if not leg.port_asked:
        return [ping]
    if leg.protocol != "tcp":
        return [ping, SendProbe(pod=pod, target=leg.target_address, protocol=leg.protocol, port=leg.port)]
    return [ping, SendProbe(pod=pod, target=leg.target_address, protocol="tcp", port=leg.port, **every)]


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
    """Does it show that packets are lost now and then? Only where both trains lost several and brought others back."""
    lost, lost_again = train.sent - train.back, train.sent_again - train.back_again
    return min(lost, lost_again) >= SEVERAL and min(train.back, train.back_again) > 0


def decides(train: Train, leg: Leg) -> bool:
    """Is it of the asked kind? Pings are, where no TCP port was asked."""
    return train.protocol == ("tcp" if leg.port_asked and leg.protocol == "tcp" else "icmp")


def loses(legs: Sequence[Leg], facts: Sequence[Fact]) -> bool:
    """Did trains of the asked kind lose packets of any of these flows?"""
    forward = [leg for leg in legs if leg.direction == "forward"]
    return any(lossy(one) and decides(one, leg) for leg in forward for one in of(leg, facts))


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
    )


def pings_beside(legs: Sequence[Leg], facts: Sequence[Fact]) -> str:
    """What became of pings where connections are lost now and then: whether all packets suffer, or those with ports."""
    forward = [leg for leg in legs if leg.direction == "forward"]
    lossy_legs = [leg for leg in forward if any(lossy(one) and decides(one, leg) for one in of(leg, facts))]
    return in_turn(
        say("Of {sent} pings sent meanwhile {lost} were lost.", sent=one.sent + one.sent_again, lost=one.lost)
        for leg in lossy_legs
        for one in of(leg, facts)
        if one.protocol == "icmp" and not decides(one, leg)
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
