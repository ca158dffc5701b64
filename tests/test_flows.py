"""A question of two families is two flows: each is judged by itself, and neither hides what is wrong with the other."""

from __future__ import annotations

from engine.diagnosis import diagnose
from engine.plan import plan
from facts import Cause, Diagnosis, Fact, Link, Listener, ProbeResult, Question, RouteLookup
from tests.scene import ADDRESS6, DB, change, healthy

DUAL = healthy(families=(4, 6))
TO_DB6 = {"node": "node-a", "destination": ADDRESS6[DB[0]], "source": "", "incoming": ""}
BY_DEFAULT = {"prefix": "::/0", "next_hop": "fd00:172:30::1", "device": "eth0"}
DOWN4 = {"node": "node-a", "device": "vxlan.calico"}


def lost(facts: list[Fact], family: int) -> list[Fact]:
    six = [one for one in facts if isinstance(one, ProbeResult) and (":" in one.target_address) == (family == 6)]
    for address in {one.target_address for one in six}:
        facts = change(facts, ProbeResult, {"target_address": address}, answered=0, outcome="silence", rtt_us=-1)
    return facts


def named(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    return [(cause.rule, _family(cause)) for cause in diagnosis.causes]


def _family(cause: Cause) -> str:
    return cause.flow.rpartition(" over ")[2]


def test_both_families_are_asked_about_and_healthy_together() -> None:
    asked = {(ask.node, ask.family): ask.felix for ask in plan(DUAL)}
    assert asked == {("node-a", 4): True, ("node-a", 6): False, ("node-b", 4): True, ("node-b", 6): False}
    diagnosis = diagnose(DUAL)
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.blind) == ("healthy", (), ())
    assert "IPv4: " in diagnosis.summary and "IPv6: " in diagnosis.summary


def test_who_asks_by_address_asks_about_that_family() -> None:
    facts = change(healthy(families=(4, 6)), Question, {}, family=6)
    assert {ask.family for ask in plan(facts)} == {6}
    assert {leg.flow for leg in diagnose(facts).path} == {"shop/cart to shop/db over IPv6"}


def test_what_is_wrong_with_one_family_is_told_of_it_and_the_other_is_drawn_well() -> None:
    diagnosis = diagnose(lost(change(DUAL, RouteLookup, TO_DB6, **BY_DEFAULT), 6))
    assert named(diagnosis) == [("route_missing", "IPv6")]
    states = {leg.flow[-4:]: {hop.state for hop in leg.hops} for leg in diagnosis.path if leg.direction == "forward"}
    assert states["IPv4"] == {"ok"}
    assert "bad" in states["IPv6"]


def test_a_wound_of_one_family_is_no_echo_of_the_others() -> None:
    """A device that is down takes its own routes along, not those of the other family's device."""
    facts = change(change(DUAL, RouteLookup, TO_DB6, **BY_DEFAULT), Link, DOWN4, up=False, operstate="DOWN")
    diagnosis = diagnose(lost(lost(facts, 4), 6))
    assert named(diagnosis) == [("vxlan_device_down", "IPv4"), ("route_missing", "IPv6")]


def test_a_family_that_loses_packets_is_not_healthy_because_the_other_is() -> None:
    diagnosis = diagnose(lost(DUAL, 6))
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())
    assert diagnosis.summary.startswith("IPv6: ")


def test_a_server_of_one_family_is_a_warning_where_that_family_is_answered_and_the_cause_where_it_is_the_only_one() -> (
    None
):
    asked = {"target_address": ADDRESS6[DB[0]], "protocol": "tcp"}
    facts = change(DUAL, ProbeResult, asked, answered=0, outcome="refused", answered_by=ADDRESS6[DB[0]], rtt_us=-1)
    facts = change(facts, Listener, {"family": 6}, found=False, addresses=(), other_family=("0.0.0.0",))
    diagnosis = diagnose(facts)
    assert (diagnosis.verdict, diagnosis.causes) == ("healthy", ())
    assert [(one.rule, _family(one)) for one in diagnosis.warnings] == [("target_not_listening", "IPv6")]
    only6 = diagnose(change(facts, Question, {}, family=6))
    assert named(only6) == [("target_not_listening", "IPv6")]
