"""Less sight weakens an answer to "unknown" and says what was not seen; it never names another cause, never heals."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
import pytest

from engine.diagnosis import diagnose
from facts import (
    Allocation,
    Blind,
    CalicoNode,
    Diagnosis,
    Fact,
    Link,
    Neighbor,
    PodRoute,
    ProbeResult,
    RoutingRules,
    Sighting,
    from_builtins,
)
from lab.client import Lab
from lab.faults import beside
from tests.exhaustive import Cells
from tests.less_sight import without_each_look, without_each_resource
from tests.record import DERIVED
from tests.scene import CART, DB, DEVICE, healthy
from tests.test_cases import RECORDINGS, STILL_TRUE, facts_of
from tests.two_wounds import recorded_healthy

TAKEN = Cells(every=12)  # looks of a recording


def weakened(diagnosis: Diagnosis, mode: str, verdict: str, warned: Collection[str] = ()) -> None:
    """warned: what somebody who sees everything is warned of besides."""
    true = {mode, beside(mode), *STILL_TRUE.get(mode, ())}
    assert {cause.rule for cause in diagnosis.causes} <= true, diagnosis
    assert {cause.rule for cause in diagnosis.warnings} <= {*true, *warned}, diagnosis
    assert diagnosis.verdict in ("unknown", verdict), diagnosis.summary
    if diagnosis.verdict == "healthy":
        assert all(blind.minor for blind in diagnosis.blind), diagnosis.blind


@pytest.mark.parametrize(("mode", "recording"), RECORDINGS)
def test_a_look_that_fails_is_told_and_blames_nobody_else(mode: str, recording: dict[str, Any]) -> None:
    """Each collector of each node, each node's whole probe, and each kind of thing the API tells."""
    looks = without_each_look(facts_of(recording))
    for blind, facts in TAKEN.of(f"{mode}-{recording['where']}", looks, lambda one: one[0].look):
        diagnosis = diagnose(facts)
        weakened(diagnosis, mode, recording.get("verdict", "cause"))
        assert blind in diagnosis.blind
        assert diagnosis.verdict != "healthy", blind


@pytest.mark.parametrize(
    ("kind", "where", "look", "what"),
    [
        (Neighbor, {"node": "node-a", "device": DEVICE}, "neighbor", "the next hop 10.244.218.64"),
        (PodRoute, {"node": "node-b"}, "pod", f"the route of {DB[0]} to {CART[2]}"),
        (Sighting, {"node": "node-b", "way": "in"}, "tap", f"packets from {CART[2]} to {DB[2]}"),
        (RoutingRules, {"node": "node-a"}, "machine", "its routing rules"),
        (
            ProbeResult,
            {"node": "node-a", "protocol": "tcp", "size": 0},
            "packets",
            f"packets (tcp 5432) to {DB[2]}",
        ),
    ],
)
def test_the_look_that_is_missing_is_named(kind: type[Fact], where: dict[str, object], look: str, what: str) -> None:
    facts = healthy()
    of = [
        fact
        for fact in facts
        if isinstance(fact, kind) and all(getattr(fact, name) == value for name, value in where.items())
    ]
    assert of
    diagnosis = diagnose([fact for fact in facts if fact not in of])
    assert diagnosis.verdict == "unknown"
    told = [blind for blind in diagnosis.blind if (blind.node, blind.look) == (where["node"], look)]
    assert len(told) == 1 and what in told[0].reason, diagnosis.blind


def test_a_healthy_pair_is_called_so_only_when_all_was_seen() -> None:
    for blind, facts in without_each_look([from_builtins(dict(fact)) for fact in recorded_healthy()]):
        diagnosis = diagnose(facts)
        assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("unknown", (), ()), blind
        assert blind in diagnosis.blind


async def test_without_a_wound_no_refused_resource_makes_one(lab: Lab) -> None:
    _, answers = await without_each_resource(lab, "shop/cart shop/db 5432/tcp")
    for resource, answer in answers.items():
        if isinstance(answer, Diagnosis):
            assert (answer.causes, answer.warnings) == ((), ()), resource
            assert answer.verdict == "unknown" or all(blind.minor for blind in answer.blind), resource


@pytest.mark.parametrize(
    ("resource", "kind", "sentence"),
    [
        ("felixconfigurations", CalicoNode, "depends on FelixConfiguration"),
        ("ippools", Allocation, "the pools could not be read"),
    ],
)
async def test_what_nobody_may_read_is_not_taken_for_the_defaults(
    lab: Lab, resource: str, kind: type[CalicoNode | Allocation], sentence: str
) -> None:
    """A cluster whose nodes have another VNI and port than Calico's defaults, asked about by somebody who may not read
    what says so."""
    _, answers = await without_each_resource(lab, "shop/cart shop/db 5432/tcp")
    answer = answers[resource]
    assert isinstance(answer, Diagnosis)
    assert any(sentence in str(blind.reason) for blind in answer.blind), answer.blind
    other = [
        msgspec.structs.replace(fact, vni=4711, vxlan_port=8472) if isinstance(fact, Link) and fact.vni > 0 else fact
        for fact in answer.facts
    ]
    assert [fact for fact in other if isinstance(fact, kind)]
    judged = diagnose([fact for fact in other if not isinstance(fact, DERIVED)])
    assert (judged.verdict, judged.causes, judged.warnings) == ("unknown", (), ()), judged


def test_the_looks_are_taken_away_one_by_one() -> None:
    taken = [blind for blind, _ in without_each_look([from_builtins(dict(fact)) for fact in recorded_healthy()])]
    assert Blind(node="node-b", look="probe", reason="it was taken away") in taken
    assert Blind(node="node-a", look="pod", reason="it was taken away") in taken
    assert Blind(look="CalicoNode", reason="it was taken away") in taken
