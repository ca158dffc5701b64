"""Loss that comes and goes is told from two trains of packets, and from nothing less."""

from __future__ import annotations

import msgspec
import pytest

from engine.diagnosis import diagnose
from engine.plan import expected_legs
from engine.rules.packets_lost_now_and_then import packets_lost_now_and_then
from engine.trains import trains
from facts import Diagnosis, Fact, Neighbor, ProbeResult, Train
from tests.scene import CART, DB, change, healthy

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
    asked = protocol == "tcp"
    (leg,) = [one for one in expected_legs(healthy(port=5432 if asked else 0)) if one.direction == "forward"]
    seen = train(protocol=protocol, port=5432 if asked else 0)
    found = packets_lost_now_and_then.body(seen, msgspec.structs.replace(leg, target_kind=kind))
    assert bool(found) == bool(accused)


def test_where_something_explains_the_loss_it_is_no_cause_of_its_own() -> None:
    facts = change(scene(train()), Neighbor, {"node": "node-a", "device": "vxlan.calico"}, mac="66:00:00:00:00:99")
    diagnosis = diagnose(facts)
    assert "packets_lost_now_and_then" not in named(diagnosis) and diagnosis.verdict == "cause"


def test_trains_are_sent_where_some_packets_came_back_and_others_did_not() -> None:
    known = healthy()
    (ask,) = trains(known, scene())
    assert (ask.node, ask.read, ask.felix) == ("node-a", False, False)
    assert [(one.protocol, one.port, one.pod) for one in ask.send] == [("icmp", 0, CART[0]), ("tcp", 5432, CART[0])]
    assert sum(2 * one.count for one in ask.send) <= 100
    assert trains(known, known) == [], "not on a good path"
    lost = change(known, ProbeResult, {"protocol": "tcp"}, answered=0, outcome="silence")
    assert trains(known, lost) == [], "and not where all are lost"
