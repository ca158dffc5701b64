"""Loss that comes and goes is told from two trains of packets, and from nothing less."""

from __future__ import annotations

import msgspec
import pytest

from bot.investigate import Means, investigate
from bot.settings import from_environment
from bot.sources.kubernetes import Cluster
from bot.sources.probes import Probes
from engine.diagnosis import diagnose
from engine.path import stages_of
from engine.plan import TRAIN, plan
from engine.trains import losses, trains
from facts import (
    Blind,
    Diagnosis,
    Endpoint,
    Fact,
    Neighbor,
    NodeAsk,
    ProbeResult,
    Question,
    RuleDrop,
    StageSighting,
    Train,
)
from lab.client import Lab
from node_probe.packets import MOST
from tests.asking import ask as ask_lab
from tests.asking import worker
from tests.scene import CART, DB, change, healthy
from tests.test_sights import both_legs, passed

PARTLY = {"answered": 1}


def train(**changes: object) -> Train:
    lossy = Train(
        node=CART[1],
        pod=CART[0],
        source_address=CART[2],
        target_address=DB[2],
        protocol="tcp",
        port=5432,
        sent=20,
        back=13,
        sent_again=20,
        back_again=15,
        retried=7,
        retried_back=4,
        outcome="silence",
    )
    return msgspec.structs.replace(lossy, **changes)


def scene(*more: Fact) -> list[Fact]:
    """One of two connections came to nothing."""
    return [*change(healthy(), ProbeResult, {"protocol": "tcp"}, **PARTLY), *more]


def named(diagnosis: Diagnosis) -> list[str]:
    return [cause.rule for cause in diagnosis.causes]


def test_loss_in_both_trains_is_a_cause_with_its_share() -> None:
    diagnosis = diagnose(scene(train()))
    assert named(diagnosis) == ["packets_lost_now_and_then"]
    (cause,) = diagnosis.causes
    assert cause.severity == "degrades"
    assert "tcp 5432: 7 of 20 in a first train and 5 of 20 in a second one" in cause.text
    assert "One of several paths" not in cause.text


def test_whether_pings_suffer_too_is_told_beside() -> None:
    """Where only packets with ports are lost, look at paths that are chosen by ports, and at the server."""
    pings = train(protocol="icmp", port=0, back=20, back_again=20, retried=0, retried_back=0, outcome="")
    assert "Of 40 pings sent meanwhile 0 were lost." in diagnose(scene(train(), pings)).summary


def test_packets_that_are_always_the_same_ones_tell_of_a_path() -> None:
    diagnosis = diagnose(scene(train(retried=7, retried_back=0)))
    assert "One of several paths is broken" in diagnosis.causes[0].text
    few = diagnose(scene(train(back=18, retried=2, retried_back=0)))
    assert "One of several paths" not in few.causes[0].text, "two may be lost twice by chance"


@pytest.mark.parametrize(
    "seen",
    [
        train(back=20, back_again=20, retried=0, retried_back=0, outcome=""),
        train(back=19, back_again=19),
        train(back=12, back_again=20),
        train(back=0, back_again=0, retried=20, retried_back=0),
        train(protocol="icmp", port=0),
        train(pod="", source_address="172.30.0.11"),
    ],
    ids=["none lost", "one of each", "only in one", "all lost", "pings, where a port was asked", "sent by the node"],
)
def test_less_than_that_accuses_nobody(seen: Train) -> None:
    assert named(diagnose(scene(seen))) == []


def test_a_first_look_that_lost_a_packet_says_what_came_of_more() -> None:
    diagnosis = diagnose(scene(train(back=20, back_again=20, retried=0, retried_back=0, outcome="")))
    assert diagnosis.verdict == "unknown"
    assert "Of 40 packets sent after that (tcp 5432) 0 were lost." in diagnosis.summary


@pytest.mark.parametrize(("kind", "protocol", "accused"), [("node", "icmp", 0), ("node", "tcp", 1), ("pod", "icmp", 1)])
def test_a_node_may_answer_only_so_many_pings(kind: str, protocol: str, accused: int) -> None:
    known = healthy(port=5432 if protocol == "tcp" else 0)
    target = DB[2]
    if kind == "node":
        target = "172.30.0.12"
        node = Endpoint(name="node-b", kind="node", node="node-b", address=target, addresses=(target,))
        known = [*change(known, Question, {}, target="node-b"), node]
    seen = train(protocol=protocol, port=5432 if protocol == "tcp" else 0, target_address=target)
    assert len(losses([*known, seen])) == accused


def test_where_something_explains_the_loss_it_is_no_cause_of_its_own() -> None:
    facts = change(scene(train()), Neighbor, {"node": "node-a", "device": "vxlan.calico"}, mac="66:00:00:00:00:99")
    diagnosis = diagnose(facts)
    assert (diagnosis.verdict, named(diagnosis), diagnosis.warnings) == ("cause", ["neighbor_wrong_mac"], ())


def test_trains_are_sent_where_some_packets_came_back_and_others_did_not() -> None:
    known = healthy()
    source, target = trains(known, scene())
    for ask, name in ((source, "node-a"), (target, "node-b")):
        assert (ask.node, ask.read, ask.felix) == (name, False, False)
        assert {(one.protocol, one.port, one.train) for one in ask.trace} == {("tcp", 5432, True)}
    assert [(one.protocol, one.port, one.pod) for one in source.send] == [("icmp", 0, CART[0]), ("tcp", 5432, CART[0])]
    assert 2 * sum(2 * one.count for one in source.send) <= MOST, "also of two flows"
    assert target.send == () and {one.way for one in target.watch} == {"in"}
    assert trains(known, known) == [], "not on a good path"
    lost = change(known, ProbeResult, {"protocol": "tcp"}, answered=0, outcome="silence")
    assert trains(known, lost) == [], "and not where all are lost"


# -- the first look sends a train, too


def first(lost: int, **changes: object) -> Train:
    """Of the first look: one train, nothing again."""
    return train(sent=TRAIN, back=TRAIN - lost, sent_again=0, back_again=0, retried=0, retried_back=0, **changes)


WELL = {"sent": 50, "back": 50, "sent_again": 50, "back_again": 50, "retried": 0, "retried_back": 0, "outcome": ""}


def test_every_question_about_a_pod_sends_a_train_of_the_asked_kind() -> None:
    for port, protocol, kinds in ((5432, "tcp", [("tcp", 5432)]), (53, "udp", [("icmp", 0)]), (0, "", [("icmp", 0)])):
        known = change(healthy(port=port), Question, {}, protocol=protocol)
        sent = [one for ask in plan(known) for one in ask.send if one.every_ms]
        assert [(one.protocol, one.port) for one in sent] == kinds
        assert all(one.once and one.count >= 30 and one.count * one.every_ms <= 50 for one in sent)
    assert 1 - 0.9**TRAIN > 0.95, "of a path that loses one in ten"


def test_a_first_train_that_lost_some_is_looked_into_though_two_connections_came_back() -> None:
    known = healthy()
    assert [ask.node for ask in trains(known, [*known, first(1)])] == ["node-a", "node-b"]
    assert trains(known, [*known, first(0)]) == [] and trains(known, [*known, first(TRAIN)]) == []


def test_one_lost_packet_accuses_nobody_and_is_told() -> None:
    diagnosis = diagnose([*healthy(), first(1), train(**WELL)])
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ())
    assert f"Of {TRAIN} more packets (tcp 5432) that were sent beside them 1 were lost." in diagnosis.summary
    assert "Of 100 packets sent after that (tcp 5432) 0 were lost." in diagnosis.summary


@pytest.mark.parametrize(
    "seen",
    [
        (first(1),),
        (first(2), train(**WELL)),
        (first(1), train(**(WELL | {"back": 49, "retried": 1, "retried_back": 1}))),
        (first(8), train(**(WELL | {"back": 40, "retried": 10, "retried_back": 10}))),
    ],
    ids=["and nothing else is known", "two", "one, and one again", "many, and then none"],
)
def test_what_is_more_than_chance_and_less_than_proof_is_not_called_healthy(seen: tuple[Train, ...]) -> None:
    diagnosis = diagnose([*healthy(), *seen])
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())
    assert f"Of {TRAIN} more packets (tcp 5432) that were sent beside them " in diagnosis.summary


def test_a_train_that_brings_back_nothing_says_nothing_where_connections_pass() -> None:
    """Somebody may not like first packets without a connection behind them."""
    diagnosis = diagnose([*healthy(), first(TRAIN)])
    assert (diagnosis.verdict, diagnosis.warnings) == ("healthy", ())


# -- where they were lost

LOSSY = {"sent": 50, "back": 44, "sent_again": 50, "back_again": 46, "retried": 6, "retried_back": 5}
ALL, LEFT = 106, 95


def met(way: str, last: str, encapsulation: str = "vxlan") -> list[StageSighting]:
    """The packets of two trains, all of which left that stage, and no more than LEFT of them the next one."""
    found, count = [], ALL
    for leg in both_legs(encapsulation):
        for stage in stages_of(leg)[:-1]:
            if one := passed(leg, stage):
                found.append(msgspec.structs.replace(one, seen=count, train=True))
            if (leg.direction, stage) == (way, last):
                count = LEFT
    return found


@pytest.mark.parametrize(
    ("way", "last", "node", "stage", "said"),
    [
        (
            "forward",
            "source pod",
            "node-a",
            "source veth",
            "106 of them were seen at eth0 of shop/cart, and 95 at cali",
        ),
        ("forward", "source node", "node-a", "source tunnel", "106 of them were seen at vxlan.calico of node-a"),
        ("forward", "source tunnel", "node-a", "underlay", "at eth0 of node-a, and 95 at eth0 of node-b"),
        ("forward", "underlay", "node-b", "target tunnel", "at eth0 of node-b, and 95 at vxlan.calico of node-b"),
        ("forward", "target node", "node-b", "target veth", "and 95 at eth0 of shop/db"),
        ("reverse", "source pod", "node-b", "source veth", "106 answers were seen at eth0 of shop/db, and 95 at cali"),
        ("reverse", "source tunnel", "node-b", "underlay", "at eth0 of node-b, and 95 at eth0 of node-a"),
    ],
)
def test_a_loss_now_and_then_is_placed_between_two_devices(
    way: str, last: str, node: str, stage: str, said: str
) -> None:
    diagnosis = diagnose([*healthy(), first(3), train(**LOSSY), *met(way, last)])
    (cause,) = diagnosis.causes
    assert (cause.rule, cause.node, cause.leg, cause.stage) == ("packets_lost_now_and_then", node, way, stage)
    assert said in cause.text, cause.text


def test_a_stage_nobody_could_look_at_leaves_open_which_of_two_it_was() -> None:
    seen = [one for one in met("forward", "source tunnel") if not (one.node == "node-b" and one.encapsulation)]
    (cause,) = diagnose([*healthy(), first(3), train(**LOSSY), *seen]).causes
    assert (cause.node, cause.stage) == ("node-a", "")
    assert "106 of them were seen at eth0 of node-a, and 95 at vxlan.calico of node-b" in cause.text


def test_a_bond_whose_packets_are_seen_twice_loses_nothing() -> None:
    """One device within the other, or two beside each other: their numbers are no sum."""
    seen = met("forward", "underlay")
    cards = [one for one in seen if one.node == "node-b" and one.encapsulation and not one.reply]
    halves = [msgspec.structs.replace(cards[0], device=name, seen=ALL // 2) for name in ("eth1", "eth2")]
    (cause,) = diagnose([*healthy(), first(3), train(**LOSSY), *seen, *halves]).causes
    assert cause.stage == "target tunnel"
    rest = [one for one in seen if one not in cards]
    (cause,) = diagnose([*healthy(), first(3), train(**LOSSY), *rest, *halves]).causes
    assert "106 of them were seen at eth0 of node-a, and 95 at vxlan.calico of node-b" in cause.text


def test_who_did_not_look_on_all_the_time_places_nothing() -> None:
    seen = [
        msgspec.structs.replace(one, enclosed=False) if one.node == "node-b" else one
        for one in met("forward", "source tunnel")
    ]
    (cause,) = diagnose([*healthy(), first(3), train(**LOSSY), *seen]).causes
    assert (cause.node, cause.stage) == ("node-a", "")
    assert "106 of them were seen at eth0 of node-a, and 95 answers at eth0 of node-a" in cause.text


@pytest.mark.parametrize(
    ("port", "way", "last", "verdict", "said"),
    [
        (5432, "forward", "target veth", "unknown", "its queue of new connections is full"),
        (0, "forward", "target veth", "healthy", "it may answer only so many pings in a second"),
        (5432, "reverse", "target pod", "unknown", "nothing on the way lost them"),
    ],
    ids=["a server's queue", "pings to a pod", "none was lost on the way"],
)
def test_what_the_target_does_not_answer_accuses_nobody(
    port: int, way: str, last: str, verdict: str, said: str
) -> None:
    kind = {"protocol": "tcp" if port else "icmp", "port": port}
    diagnosis = diagnose([*healthy(port=port), first(3, **kind), train(**(LOSSY | kind)), *met(way, last)])
    assert (diagnosis.verdict, diagnosis.causes) == (verdict, ())
    (warning,) = diagnosis.warnings
    assert said in warning.text and f"of {TRAIN + 100} packets from shop/cart to shop/db 13 were lost" in warning.text


RULE = RuleDrop(
    node="node-b",
    source_address=CART[2],
    target_address=DB[2],
    protocol="tcp",
    port=5432,
    how="trace",
    backend="iptables-nft",
    family=4,
    table="filter",
    chain="FORWARD",
    number=3,
    text="-A FORWARD -j DROP",
    hook="forward",
    partly=True,
)


@pytest.mark.parametrize(
    ("rule", "verdict", "said"),
    [
        ("-A FORWARD -m statistic --mode random --probability 0.1 -j DROP", "cause", "A rule of node-b ends some"),
        ("meta l4proto tcp numgen random mod 10 0 drop", "cause", "rule 3 of chain FORWARD"),
        ("-A FORWARD -p tcp --syn -m limit --limit 50/s -j DROP", "healthy", "A limit of node-b ends some of them"),
        ("tcp flags syn limit rate over 50/second drop", "healthy", "which a flow that sends less at once"),
        ("-A FORWARD -j DROP", "unknown", "one before it may let only so many pass in a second"),
    ],
)
def test_a_rule_that_ends_some_of_a_train_is_named_and_a_limit_is_not_accused(
    rule: str, verdict: str, said: str
) -> None:
    drop = msgspec.structs.replace(RULE, text=rule)
    diagnosis = diagnose([*healthy(), first(3), train(**LOSSY), drop, *met("forward", "target tunnel")])
    assert diagnosis.verdict == verdict
    assert {cause.rule for cause in (*diagnosis.causes, *diagnosis.warnings)} == {"packets_lost_now_and_then"}
    told = (*diagnosis.causes, *diagnosis.warnings)[0]
    assert told.node == "node-b" and said in told.text and rule in told.text


@pytest.mark.parametrize("blind", ["", "nobody looked"])
@pytest.mark.parametrize("reply", [False, True])
def test_a_rule_that_ends_one_packet_does_not_hide_what_loses_the_others(*, reply: bool, blind: str) -> None:
    """A port of the train that was used before is no new connection to a firewall."""
    one = msgspec.structs.replace(RULE, node="node-a", reply=reply, text="ct state invalid drop")
    seen = [] if blind else met("forward", "source tunnel")
    (cause,) = diagnose([*healthy(), first(3), train(**LOSSY), one, *seen]).causes
    assert (cause.rule, cause.node, cause.stage) == ("packets_lost_now_and_then", "node-a", "" if blind else "underlay")
    assert "invalid" not in cause.text


def of_look(one: StageSighting) -> tuple[str, str, bool]:
    return one.node, one.pod, one.reply


@pytest.mark.parametrize("node", ["node-a", "node-b"])
def test_where_nobody_saw_packets_before_they_were_lost_it_was_neither_nobody_nor_the_pod(node: str) -> None:
    """A busy node may have had no room for what it was to look at: of one way, both beside the pod and within."""
    seen, blind = [], set()
    for one in met("forward", "source tunnel"):
        if one.node != node or one.reply:
            seen.append(one)
        elif of_look(one) not in blind:
            blind.add(of_look(one))
            seen.append(msgspec.structs.replace(one, seen=-1, device="", encapsulation=""))
    assert len(blind) == 2
    diagnosis = diagnose([*healthy(), first(3), train(**LOSSY), *seen])
    assert [(cause.rule, cause.stage) for cause in diagnosis.causes] == [("packets_lost_now_and_then", "")]


async def test_what_a_cable_loses_now_and_then_is_placed_between_both_cards(lab: Lab) -> None:
    """Wherever both nodes looked on all the time: on a busy machine one may begin too late."""
    lab.inflict("packets_lost_now_and_then")
    for _ in range(5):
        diagnosis = (await ask_lab(lab.environment(), "shop/cart shop/db 5432/tcp")).diagnosis
        (cause,) = diagnosis.causes
        assert (cause.rule, cause.node) == ("packets_lost_now_and_then", "node-a")
        if cause.stage:
            break
    assert (cause.stage, cause.leg) == ("underlay", "forward")
    assert " of them were seen at eth0 of node-a, and " in cause.text and " at eth0 of node-b." in cause.text


class _BusyProbes(Probes):
    """They had no time to end a train."""

    async def _one(self, ask: NodeAsk, address: str, mark: str) -> list[Fact]:
        facts = await super()._one(ask, address, mark)
        if not any(one.train for one in ask.trace) or not ask.send:
            return facts
        late = Blind(node=ask.node, look="packets", reason="not done after 4000 ms")
        return [*(fact for fact in facts if not isinstance(fact, Train)), late]


async def test_trains_that_could_not_be_sent_are_told(lab: Lab) -> None:
    lab.inflict("packets_lost_now_and_then")
    settings = from_environment(lab.environment())
    words = ["shop/cart", "shop/db", "5432/tcp"]
    async with Cluster(settings) as cluster, _BusyProbes(settings) as probes:
        answer = (await investigate(words, Means(cluster, probes, worker()))).diagnosis
    assert (answer.verdict, answer.causes) == ("unknown", ())
    assert ("node-a", "packets", "not done after 4000 ms") in [(one.node, one.look, one.reason) for one in answer.blind]
