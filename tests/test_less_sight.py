"""Less sight weakens an answer to "unknown" and says what was not seen; it never names another cause, never heals."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bot.errors import UserError
from bot.sources.probes import NOT_A_PROBES
from engine import rulebase
from engine.diagnosis import diagnose
from engine.rule import CauseRule
from facts import Allocation, Blind, CalicoNode, Diagnosis, Link, from_builtins
from lab.client import Lab
from lab.faults import beside, names, needs
from tests.asking import words_for
from tests.less_sight import without_each_look, without_each_resource
from tests.record import DERIVED
from tests.test_cases import RECORDINGS, STILL_TRUE, facts_of
from tests.two_wounds import recorded_healthy

RULES = {rule.name: rule for rule in rulebase.load().rules if isinstance(rule, CauseRule)}
# Policies are read wherever packets are lost, so these stand for all such modes: a tunnel's, a route's, a policy's.
LOSE_PACKETS = {"tunnel_address_missing", "route_missing", "policy_denies_ingress", "policy_not_programmed"}
# Those whose rules rest on what the API says: what a probe sees alone, no refusal changes.
WOUNDS = [
    mode
    for mode in names()
    if mode in LOSE_PACKETS
    or any(issubclass(one.kind, NOT_A_PROBES) and one.kind not in DERIVED for _, one in RULES[mode].patterns)
]
NEEDED = {"pods", "services"}  # without what was asked about there is no question; that is said, too


def _weakened(diagnosis: Diagnosis, mode: str, verdict: str) -> None:
    assert {cause.rule for cause in (*diagnosis.causes, *diagnosis.warnings)} <= {
        mode,
        beside(mode),
        *STILL_TRUE.get(mode, ()),
    }, diagnosis
    assert diagnosis.verdict in ("unknown", verdict), diagnosis.summary
    if diagnosis.verdict == "healthy":
        assert all(blind.minor for blind in diagnosis.blind), diagnosis.blind


@pytest.mark.parametrize(("mode", "recording"), RECORDINGS)
def test_a_look_that_fails_is_told_and_blames_nobody_else(mode: str, recording: dict[str, Any]) -> None:
    """Each collector of each node, each node's whole probe, and each kind of thing the API tells."""
    for blind, facts in without_each_look(facts_of(recording)):
        diagnosis = diagnose(facts)
        _weakened(diagnosis, mode, recording.get("verdict", "cause"))
        assert blind in diagnosis.blind
        assert diagnosis.verdict != "healthy", blind


def test_a_healthy_pair_is_called_so_only_when_all_was_seen() -> None:
    for blind, facts in without_each_look([from_builtins(dict(fact)) for fact in recorded_healthy()]):
        diagnosis = diagnose(facts)
        assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("unknown", (), ()), blind
        assert blind in diagnosis.blind


@pytest.mark.parametrize("mode", WOUNDS)
async def test_a_resource_the_api_server_refuses_is_told_and_blames_nobody_else(lab: Lab, mode: str) -> None:
    """On a real lab, with a user who may read everything but that resource, for every resource the answer rests on."""
    if needs(mode):
        pytest.skip(f"{mode} needs {needs(mode)}, which no lab has; its case is written by hand")
    words = words_for(lab.inflict(mode))
    whole, answers = await without_each_resource(lab, words, policies=mode in LOSE_PACKETS)
    assert {"pods", "nodes", "ippools", "ipamblocks", "clusterinformations", "felixconfigurations"} <= set(answers)
    for resource, answer in answers.items():
        if isinstance(answer, UserError):
            assert resource in NEEDED and resource in answer.sentence
            continue
        # What only warns leaves the path healthy, and so does not seeing what only warnings rest on.
        _weakened(answer, mode, whole.verdict)
        assert [blind for blind in answer.blind if resource in f"{blind.look} {blind.reason}"], (resource, answer.blind)


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
