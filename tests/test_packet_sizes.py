"""Full-size packets that are lost, by every way packets can go: who is too large or too narrow, and who is well."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.diagnosis import diagnose
from engine.plan import plan
from facts import Diagnosis, Fact, Link, PodInterface, ProbeResult, Question
from tests.other_ways import ipip, plain, wireguard
from tests.scene import CART, DB, DEVICE, change, healthy

LOST = {"answered": 0, "outcome": "silence", "rtt_us": -1}
# tunnel device, what it takes on an uplink of 1500
WAYS: dict[str, tuple[list[Fact], str, int]] = {
    "VXLAN": (healthy(), DEVICE, 1450),
    "IPIP": (ipip(), "tunl0", 1480),
    "WireGuard": (wireguard(), "wireguard.cali", 1440),
    "none": (plain(), "", 1500),
}


def named(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    return [(cause.rule, cause.node) for cause in diagnosis.causes]


def full_lost(facts: list[Fact]) -> list[Fact]:
    found = facts
    for size in {fact.size for fact in facts if isinstance(fact, ProbeResult) and fact.size}:
        found = change(found, ProbeResult, {"size": size}, **LOST)
    return found


def with_pods(facts: list[Fact], mtu: int) -> list[Fact]:
    """All pods have this MTU, and their largest packets were tried."""
    found = change(facts, PodInterface, {}, mtu=mtu, pod_mtu=mtu)
    for size in {fact.size for fact in facts if isinstance(fact, ProbeResult) and fact.size}:
        found = change(found, ProbeResult, {"size": size}, size=mtu)
    return found


def with_large_cart(facts: list[Fact], mtu: int) -> list[Fact]:
    """One pod has this MTU, and its largest packets are lost."""
    facts = change(facts, PodInterface, {"pod": CART[0]}, mtu=mtu, pod_mtu=mtu)
    sizes = {fact.size for fact in facts if isinstance(fact, ProbeResult) and fact.pod == CART[0] and fact.size}
    for size in sizes:
        facts = change(facts, ProbeResult, {"pod": CART[0], "size": size}, size=mtu, **LOST)
    return facts


@pytest.mark.parametrize("way", WAYS)
def test_the_network_between_is_too_narrow_where_both_nodes_take_it_all(way: str) -> None:
    facts, _, _ = WAYS[way]
    assert named(diagnose(full_lost(facts))) == [("path_mtu_too_small", "node-a")]


@pytest.mark.parametrize("way", WAYS)
def test_pods_that_use_all_that_their_node_takes_are_well(way: str) -> None:
    facts, _, most = WAYS[way]
    diagnosis = diagnose(with_pods(facts, most))
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ())


@pytest.mark.parametrize("way", WAYS)
def test_a_pod_that_builds_larger_packets_than_its_node_sends_on(way: str) -> None:
    facts, _, most = WAYS[way]
    assert named(diagnose(with_large_cart(facts, most + 10))) == [("pod_mtu_too_large", "node-a")]


@pytest.mark.parametrize("way", WAYS)
def test_of_a_pod_that_is_too_large_alone_nobody_is_told_to_widen_the_node_s_end(way: str) -> None:
    """Somebody in the pod set its MTU, and the node's end is as the CNI plugin made it."""
    facts, _, most = WAYS[way]
    facts = change(with_large_cart(facts, most + 10), PodInterface, {"pod": CART[0]}, mtu=most)
    assert named(diagnose(facts)) == [("pod_mtu_too_large", "node-a")]


@pytest.mark.parametrize("way", [way for way in WAYS if WAYS[way][1]])
def test_a_tunnel_that_is_larger_than_its_uplink_carries(way: str) -> None:
    facts, device, most = WAYS[way]
    facts = change(facts, Link, {"node": "node-a", "device": device}, mtu=most + 20)
    diagnosis = diagnose(facts)
    assert [(warning.rule, warning.node) for warning in diagnosis.warnings] == [("tunnel_mtu_too_large", "node-a")]
    assert f"at most {most} is right" in diagnosis.warnings[0].text
    assert named(diagnose(with_large_cart(facts, most + 20))) == [("tunnel_mtu_too_large", "node-a")]


def test_the_answer_says_which_packets_pass() -> None:
    """What a person needs to set the right MTU, or to know the device between the nodes by."""
    lost = full_lost(healthy())
    named_size = change(lost, ProbeResult, {"pod": CART[0], "size": 1450}, passes=1372, stops=1373)
    diagnosis = diagnose(named_size)
    assert named(diagnosis) == [("path_mtu_too_small", "node-a")]
    assert "Packets of up to 1372 bytes come back, those of 1373 do not." in diagnosis.causes[0].text
    for facts in (with_large_cart(healthy(), 1460), with_large_cart(change(healthy(), Link, {}, mtu=1470), 1460)):
        found = diagnose(change(facts, ProbeResult, {"pod": CART[0], "size": 1460}, passes=1450, stops=1451))
        assert "up to 1450 bytes" in found.causes[0].text


def test_the_other_node_s_uplink_is_narrower_by_right() -> None:
    """Answers of that size it could not send: nothing between the nodes is wrong."""
    facts = change(plain(), Link, {"node": "node-b", "device": "eth0"}, mtu=1400)
    facts = change(facts, PodInterface, {"node": "node-b"}, mtu=1400, pod_mtu=1400)
    diagnosis = diagnose(with_large_cart(facts, 1500))
    assert diagnosis.causes == ()


def by_tcp(**fields: Any) -> ProbeResult:
    """Of first packets of connections with data in them, as large as both pods take."""
    (small,) = [one for one in healthy() if isinstance(one, ProbeResult) and one.protocol == "tcp"]
    return msgspec.structs.replace(small, size=1450, **fields)


def without_pings() -> list[Fact]:
    """A policy lets nothing but the asked port pass."""
    return change(healthy(), ProbeResult, {"protocol": "icmp", "target_address": DB[2]}, **LOST)


def asked(known: list[Fact]) -> list[tuple[str, str, str, int, str]]:
    """Where full-size packets of a port are sent from, and where they are answered by a probe."""
    asks = plan(known)
    sent = [(ask.node, one.pod, one.protocol, one.port, one.large) for ask in asks for one in ask.send if one.large]
    answered = [(ask.node, one.pod, one.protocol, 0, one.address) for ask in asks for one in ask.answering]
    return [*sent, *answered]


def test_full_size_packets_of_the_asked_port_belong_to_every_question_with_one() -> None:
    """Pings of that size say nothing of a rule about large TCP, or are not answered at all."""
    assert asked(healthy()) == [
        ("node-a", CART[0], "tcp", 5432, "there"),
        ("node-a", CART[0], "tcp", 5432, "back"),
        ("node-b", DB[0], "tcp", 0, DB[2]),
    ]
    assert asked(healthy(port=0)) == []
    by_udp = change(healthy(), Question, {}, protocol="udp", port=53)
    assert [one[2:] for one in asked(by_udp)] == [("udp", 53, "there"), ("udp", 53, "back"), ("udp", 0, DB[2])]
    both = asked(healthy(families=(4, 6)))
    assert len(both) == 6 and len({one[4] for one in both if not one[3]}) == 2, "each family has its own"


def test_what_they_meet_is_the_answer_that_pings_do_not_give() -> None:
    untested = diagnose(without_pings())
    assert untested.verdict == "healthy" and "could not be tested" in untested.summary
    passing = diagnose([*without_pings(), by_tcp()])
    assert passing.verdict == "healthy" and "could not be tested" not in passing.summary
    lost = diagnose([*without_pings(), by_tcp(**LOST, passes=1372, stops=1373)])
    assert named(lost) == [("path_mtu_too_small", "node-a")]
    assert "Packets of up to 1372 bytes come back" in lost.causes[0].text


@pytest.mark.parametrize("passes", [-1, 0])
def test_a_firewall_that_dislikes_first_packets_with_data_is_no_wrong_mtu(passes: int) -> None:
    diagnosis = diagnose([*without_pings(), by_tcp(**LOST, passes=passes)])
    assert (diagnosis.verdict, diagnosis.causes) == ("healthy", ())
    assert "could not be tested" in diagnosis.summary


def test_pings_lost_by_chance_are_no_wrong_mtu_either() -> None:
    """The search met smaller ones that were lost and larger ones that passed."""
    lost = full_lost(healthy())
    diagnosis = diagnose(change(lost, ProbeResult, {"size": 1450}, passes=0))
    assert diagnosis.causes == ()
