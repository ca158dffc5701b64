"""What a node's kernel does with packets that come in for its pod, out of a tunnel and without one."""

from __future__ import annotations

from typing import Any

import pytest

from engine.diagnosis import diagnose
from engine.plan import plan
from facts import Diagnosis, Fact, ProbeResult, RouteLookup, RoutingRules, Sighting
from tests.other_ways import ipip, plain, wireguard
from tests.scene import CART, DB, DEVICE, change, healthy

SILENT = {"answered": 0, "outcome": "silence", "rtt_us": -1}
REFUSED = {"found": False, "error": "EINVAL", "type": "", "prefix": "", "device": "", "table": -1, "rp_filter": 1}
WAYS: dict[str, tuple[list[Fact], str]] = {
    "VXLAN": (healthy(), DEVICE),
    "IPIP": (ipip(), "tunl0"),
    "none": (plain(), "eth0"),
}


def arriving(device: str, at: str = "node-b") -> dict[str, Any]:
    source, target = (CART[2], DB[2]) if at == "node-b" else (DB[2], CART[2])
    return {"node": at, "destination": target, "source": source, "incoming": device}


def judged(facts: list[Fact]) -> Diagnosis:
    """Where no packet from pod to pod comes back."""
    for pod in (CART[0], DB[0]):
        facts = change(facts, ProbeResult, {"pod": pod}, **SILENT)
    return diagnose(facts)


def named(diagnosis: Diagnosis) -> list[tuple[str, str, str]]:
    return [(cause.rule, cause.node, cause.leg) for cause in diagnosis.causes]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("node", "leg"), [("node-a", "reverse"), ("node-b", "forward")])
def test_a_strict_filter_refuses_what_comes_in_elsewhere_than_it_would_leave(way: str, node: str, leg: str) -> None:
    facts, device = WAYS[way]
    wounded = change(facts, RouteLookup, arriving(device, node), **REFUSED)
    diagnosis = judged(wounded)
    assert named(diagnosis) == [("reverse_path_filter_drops", node, leg)]
    assert diagnosis.causes[0].stage == ("target node" if device == "eth0" else "target tunnel")


def test_a_filter_on_a_card_that_the_packets_do_not_come_in_by_is_nobodys_business() -> None:
    facts = change(plain(), RouteLookup, arriving("eth0"), **REFUSED)
    elsewhere = change(facts, Sighting, {"node": "node-b", "way": "in"}, device="eth1")
    nowhere = change(facts, Sighting, {"node": "node-b", "way": "in"}, seen=0, device="", enclosed=False)
    assert judged(elsewhere).causes == judged(nowhere).causes == ()
    loose = change(facts, RouteLookup, arriving("eth0"), rp_filter=2)
    assert judged(loose).causes == ()


def test_wireguard_marks_what_the_filter_must_let_pass() -> None:
    facts = change(wireguard(), RouteLookup, arriving("wireguard.cali"), **REFUSED)
    assert diagnose(facts).causes == ()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "fields",
    [
        {"table": 100, "device": "eth0", "prefix": "0.0.0.0/0", "next_hop": "172.30.0.1"},
        {"found": False, "error": "EACCES", "type": "prohibit", "table": -1, "device": ""},
        {"found": False, "error": "EINVAL", "type": "blackhole", "table": 100, "device": ""},
    ],
    ids=["diverted", "refused", "swallowed"],
)
def test_a_rule_about_the_sender_diverts_what_arrives(way: str, fields: dict[str, Any]) -> None:
    facts, device = WAYS[way]
    diagnosis = judged(change(facts, RouteLookup, arriving(device), **fields))
    assert named(diagnosis) == [("routing_rule_diverts", "node-b", "forward")]


BY_MARK = {"rules": ("100: fwmark 0x1/0xff lookup 200",)}
ASTRAY = {"seen": 0, "device": "", "outer_target": "", "astray": "eth0"}


def test_a_rule_about_marks_is_the_cause_where_packets_are_seen_to_leave_elsewhere() -> None:
    """Many nodes have such rules by right: the rule alone accuses nobody, nor does a copy of what is sent."""
    sent = {"node": "node-a", "way": "out"}
    ruled = change(healthy(), RoutingRules, {"node": "node-a"}, **BY_MARK)
    assert diagnose(ruled).verdict == "healthy" and judged(ruled).causes == ()
    copied = change(ruled, Sighting, sent, astray="mirror0")
    assert diagnose(copied).verdict == "healthy" and judged(copied).causes == ()
    assert judged(change(healthy(), Sighting, sent, **ASTRAY)).causes == ()
    diverted = judged(change(ruled, Sighting, sent, **ASTRAY))
    assert named(diverted) == [("routing_rule_diverts", "node-a", "forward")]
    assert "100: fwmark 0x1/0xff lookup 200" in diverted.causes[0].text


@pytest.mark.parametrize("way", [*WAYS, "WireGuard"])
def test_each_node_is_asked_what_it_does_with_what_arrives(way: str) -> None:
    facts, device = WAYS.get(way, (wireguard(), "wireguard.cali"))
    for ask, source, target in zip(plan(facts), (DB[2], CART[2]), (CART[2], DB[2]), strict=True):
        (asked,) = [one for one in ask.ways if one.destination == target and one.source]
        incoming = ("", True) if device == "eth0" else (device, False)
        assert (asked.source, (asked.incoming, asked.by_uplink)) == (source, incoming)
