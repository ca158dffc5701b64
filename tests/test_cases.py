"""Recorded wounds: each names its failure mode, in any order of facts, and with less sight never another one."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from engine.diagnosis import diagnose
from facts import Blind, Fact, Question, from_builtins
from tests.asking import told
from tests.exhaustive import Cells
from tests.less_sight import missed

CASES = sorted((Path(__file__).parent / "cases").glob("*.json"))
RECORDINGS = [
    pytest.param(case["mode"], recording, id=f"{case['mode']}-{recording['where']}")
    for case in (json.loads(path.read_text()) for path in CASES)
    for recording in case["recordings"]
]
HIDDEN = Cells(every=24)  # facts of a recording
# What a rule of the kernel does stays true where nobody can tell whether the policy behind it is still there.
STILL_TRUE = {
    "policy_not_programmed": {"policy_denies_egress", "policy_denies_ingress"},
    "firewall_backends_mixed": {"endpoint_unknown_to_felix"},
    "firewall_sets_empty": {"endpoint_unknown_to_felix", "vxlan_source_not_allowed"},
}


def facts_of(recording: dict[str, Any]) -> list[Fact]:
    return [from_builtins(one) for one in recording["facts"]]


@pytest.mark.parametrize(("mode", "recording"), RECORDINGS)
def test_the_case_names_its_failure_mode_in_any_order(mode: str, recording: dict[str, Any]) -> None:
    facts = facts_of(recording)
    for seed in range(3):
        random.Random(seed).shuffle(facts)
        diagnosis = diagnose(facts)
        named = [{"rule": cause.rule, "node": cause.node, "leg": cause.leg} for cause in told(diagnosis, mode)]
        assert named == recording["named"]
        assert named[0]["rule"] == mode
        # A path that was healthy under a warning is unknown to a rule that came later and asks for more.
        wanted = recording.get("verdict", "cause")
        assert diagnosis.verdict == wanted or (wanted, diagnosis.verdict) == ("healthy", "unknown")


@pytest.mark.parametrize(("mode", "recording"), RECORDINGS)
def test_less_sight_never_names_another_cause(mode: str, recording: dict[str, Any]) -> None:
    """Facts of the recording hidden in turn: the cause, or unknown; never healthy, never somebody else. Where it is
    unknown for want of the fact, it says so, though nobody else does.

    A wound that is only a warning leaves a healthy path healthy, seen or not.
    """
    facts = facts_of(recording)
    whole = diagnose(facts)
    for hidden in HIDDEN.of(f"{mode}-{recording['where']}", facts, type):
        diagnosis = diagnose([fact for fact in facts if fact is not hidden])
        named = {cause.rule for cause in told(diagnosis, mode)}
        assert named <= {mode, *STILL_TRUE.get(mode, ())}, f"without {hidden}"
        assert diagnosis.verdict in ("unknown", recording.get("verdict", "cause")), f"without {hidden}"
        weakened = diagnosis.verdict == "unknown" != whole.verdict and not isinstance(hidden, Question | Blind)
        assert not weakened or missed(hidden, diagnosis, whole), f"without {hidden}: {diagnosis.summary}"
