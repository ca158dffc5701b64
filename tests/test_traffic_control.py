"""Traffic control that takes packets, on two nodes of real namespaces: it is named where it does, and nowhere else."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.diagnosis import diagnose
from facts import Fact, FirewallTrace, ProbeResult, Question, StageSighting, Taker, TrafficControl, from_builtins
from tests import exhaustive
from tests.namespaces import in_namespaces
from tests.test_firewall_trace import PORT, answers, at_devices, drops, follow, guard, needs, of_family, run
from tests.two_nodes import CART_INTERFACE, DB_INTERFACE, TUNNEL, TUNNEL6, TwoNodes, echo

DROP, PASS = 2, 0xFFFFFFFF  # what a program may answer
PLACES = {  # node, direction, device, of the tunnel's packets, of the answers
    "source veth": ("a", "ingress", CART_INTERFACE, False, False),
    "source tunnel": ("a", "egress", TUNNEL, False, False),
    "source uplink": ("a", "egress", "eth0", True, False),
    "target uplink": ("b", "ingress", "eth0", True, False),
    "target tunnel": ("b", "ingress", TUNNEL, False, False),
    "target veth": ("b", "egress", DB_INTERFACE, False, False),
    "answers leave the target": ("b", "ingress", DB_INTERFACE, False, True),
    "answers come home": ("a", "egress", CART_INTERFACE, False, True),
}
PROTOCOLS = [("icmp", False), ("tcp", False), ("udp", False), ("icmp", True), ("tcp", True)]


def program(device: str, direction: str, answer: int, family: int = 4) -> None:
    """On every packet of that family, but IPv6's own of its neighbors: without these nothing would be sent at all."""
    code = f"1,6 0 0 {answer}"
    if family == 6:  # of ICMPv6 the types 133 to 137 pass
        code = f"7,48 0 0 20,21 0 4 58,48 0 0 54,53 0 2 133,37 1 0 137,6 0 0 {PASS},6 0 0 {answer}"
    run("tc", "qdisc", "replace", "dev", device, "clsact")
    run(
        "tc", "filter", "add", "dev", device, direction, "pref", "7", "protocol", "ip" if family == 4 else "ipv6",
        "bpf", "da", "bytecode", code,
    )  # fmt: skip


def taken(nodes: TwoNodes, protocol: str, *, six: bool = False) -> list[TrafficControl]:
    port = 0 if protocol == "icmp" else PORT
    facts = answers(nodes, *(at_devices(follow(one, protocol, port, six=six)) for one in ("a", "b")))
    assert drops(facts) == [] or not any(isinstance(fact, TrafficControl) for fact in facts)
    return [fact for fact in facts if isinstance(fact, TrafficControl)]


@needs("tc")
@pytest.mark.parametrize(("place", "protocol", "six"), exhaustive.matrix(3, PLACES, PROTOCOLS))
@in_namespaces
def test_a_program_of_tc_that_drops_is_told_where_it_does(place: str, protocol: str, six: bool) -> None:
    node, direction, device, outer, reply = PLACES[place]
    nodes = TwoNodes(dual=six)
    cart, db, _ = of_family(six)
    if protocol == "tcp":
        echo(nodes.db, PORT, "::" if six else "0.0.0.0")
    device = TUNNEL6 if six and device == TUNNEL else device
    nodes.at(node, lambda _: program(device, direction, DROP, 6 if six else 4))
    if reply and protocol == "udp":
        assert taken(nodes, protocol) == []  # nobody answers
        return
    (fact,) = taken(nodes, protocol, six=six)
    assert (fact.node, fact.device, fact.going) == (f"node-{node}", device, "in" if direction == "ingress" else "out")
    assert (fact.outer, fact.reply) == (outer, reply)
    assert {fact.source_address, fact.target_address} == {cart, db}
    assert fact.drops >= max(fact.packets, 1)
    (one,) = fact.takers
    assert one.how == "decide" and "pref 7 bpf handle 0x1 direct-action" in one.text


def letting_pass(device: str, direction: str, _: Any) -> None:
    program(device, direction, PASS)


@needs("tc", "nft")
@in_namespaces
def test_traffic_control_that_lets_packets_pass_is_not_blamed_for_what_is_lost_behind_it() -> None:
    nodes = TwoNodes()
    for node, direction, device, _, _ in PLACES.values():
        nodes.at(node, partial(letting_pass, device, direction))
    assert taken(nodes, "icmp") == []
    nodes.b.run(lambda: guard("ip daddr 10.244.2.2 drop"))
    assert taken(nodes, "icmp") == [] == taken(nodes, "tcp")
    nodes.b.run(lambda: guard(""))
    guard("ip daddr 10.244.2.2 drop", hook="prerouting")
    assert taken(nodes, "udp") == []


@needs("tc")
@pytest.mark.parametrize("protocol", ["icmp", "tcp", "udp"])
@in_namespaces
def test_a_program_inside_of_the_pod_that_sends_is_told_and_one_that_lets_pass_is_not(protocol: str) -> None:
    nodes = TwoNodes()
    nodes.cart.run(lambda: program("eth0", "egress", PASS))
    assert taken(nodes, protocol) == []
    nodes.cart.run(lambda: run("tc", "qdisc", "del", "dev", "eth0", "clsact"))
    nodes.cart.run(lambda: program("eth0", "egress", DROP))
    (fact,) = taken(nodes, protocol)
    assert (fact.node, fact.pod, fact.device, fact.going) == ("node-a", "shop/cart", "eth0", "out")
    assert fact.drops >= fact.packets == 2 and [one.how for one in fact.takers] == ["decide"]


@needs("tc")
@in_namespaces
def test_a_queue_that_takes_no_packet_of_that_size_is_told_with_its_count() -> None:
    nodes = TwoNodes()
    run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "1mbit", "burst", "60", "limit", "3000")
    (fact,) = taken(nodes, "udp")
    assert (fact.device, fact.going, fact.outer) == ("eth0", "out", True)
    (one,) = fact.takers
    assert one.how == "queue" and one.text.startswith("qdisc tbf 8") and one.drops >= fact.packets == 2


@needs("tc")
@in_namespaces
def test_a_filter_that_sends_packets_elsewhere_is_told_with_where() -> None:
    nodes = TwoNodes()
    nodes.at("a", lambda ip: ip.link("add", ifname="ifb0", kind="veth", peer="ifb1"))  # as a limit of bandwidth does
    run("tc", "qdisc", "add", "dev", CART_INTERFACE, "ingress")
    run(
        "tc", "filter", "add", "dev", CART_INTERFACE, "ingress", "pref", "9", "protocol", "ip", "u32",
        "match", "ip", "dst", "10.244.2.2/32", "action", "mirred", "egress", "redirect", "dev", "ifb0",
    )  # fmt: skip
    (fact,) = taken(nodes, "icmp")
    (one,) = fact.takers
    assert (one.how, one.to, one.any_kind, fact.packets, fact.drops) == ("redirect", "ifb0", True, 2, 2)


# -- what is said of it

RECORDED = json.loads((Path(__file__).parent / "cases" / "traffic_control_drops.json").read_text())["recordings"]


def said(where: int, **changes: Any) -> list[tuple[str, str]]:
    """Failure mode and severity of all that the engine tells of the recorded facts, but for these changes to tc's."""
    facts = [from_builtins(one) for one in RECORDED[where]["facts"]]
    changed = [msgspec.structs.replace(one, **changes) if isinstance(one, TrafficControl) else one for one in facts]
    diagnosis = diagnose(changed)
    return [(cause.rule, cause.severity) for cause in (*diagnosis.causes, *diagnosis.warnings)]


BREAKS = [("traffic_control_drops", "breaks")]
SENT_AROUND = Taker(text="filter", how="redirect", to="ifb0")


@pytest.mark.parametrize(
    ("where", "changes", "expected"),
    [
        (0, {}, BREAKS),
        (0, {"drops": 0}, BREAKS),  # nothing else stands between the two that looked
        (0, {"packets": 0, "drops": 0}, []),  # they may have been a server's refusal, which is not followed
        (0, {"protocol": "icmp", "port": 0}, []),  # not what was asked about
        (1, {}, BREAKS),
        (1, {"drops": 1}, []),  # behind tc there is a driver
        (1, {"drops": 0, "takers": (SENT_AROUND,)}, []),
        (1, {"device": "eth0"}, BREAKS),
    ],
)
def test_only_what_is_proved_is_told(where: int, changes: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert said(where, **changes) == expected


def test_where_no_port_was_asked_a_program_may_be_about_pings_alone() -> None:
    pings = {"protocol": "icmp", "port": 0}
    facts = [from_builtins(one) for one in RECORDED[0]["facts"]]

    def told(**changes: Any) -> list[tuple[str, str]]:
        changed: list[Fact] = []
        for fact in facts:
            if isinstance(fact, TrafficControl):
                changed.append(msgspec.structs.replace(fact, **pings, **changes))
            elif isinstance(fact, Question):
                changed.append(msgspec.structs.replace(fact, protocol="", port=0))
            elif not isinstance(fact, ProbeResult | StageSighting | FirewallTrace):
                changed.append(fact)
        diagnosis = diagnose(changed)
        return [(cause.rule, cause.severity) for cause in (*diagnosis.causes, *diagnosis.warnings)]

    assert told() == [("traffic_control_drops", "warns")]
    assert told(takers=(Taker(text="filter", how="drop", any_kind=True),)) == BREAKS
