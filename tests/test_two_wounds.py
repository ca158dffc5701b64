"""Two faults at once: both are named, in the order a person works through them, and a root's echoes stay silent."""

from __future__ import annotations

from functools import cache

import pytest

from engine import rulebase
from engine.diagnosis import diagnose
from engine.rule import CauseRule
from facts import Diagnosis
from facts.verdict import SEVERITIES
from tests.two_wounds import HIDDEN, MODES, NOT_COMPOSED, Wounded, composed, expected, pairs, recorded, recorded_healthy

RULES = {rule.name: rule for rule in rulebase.load().rules if isinstance(rule, CauseRule)}
COMPOSED = [pair for pair in pairs() if frozenset({pair[0].mode, pair[1].mode}) not in NOT_COMPOSED]


@cache
def answer(one: Wounded, two: Wounded) -> Diagnosis:
    return diagnose(composed(recorded_healthy(), recorded(one), recorded(two)))


@pytest.mark.parametrize(("one", "two"), COMPOSED, ids=lambda wounded: str(wounded))
def test_both_wounds_are_named_and_nothing_else(one: Wounded, two: Wounded) -> None:
    diagnosis = answer(one, two)
    found = [*diagnosis.causes, *diagnosis.warnings]
    assert {cause.rule for cause in found} == expected(one, two), diagnosis.summary
    assert diagnosis.verdict == "cause" or all(RULES[wounded.mode].severity == "warns" for wounded in (one, two))
    nodes = {one.mode: one.where, two.mode: two.where}
    for cause in found:
        if RULES[cause.rule].at is not None:
            assert cause.node == {"source": "node-a", "target": "node-b"}[nodes[cause.rule]], cause


@pytest.mark.parametrize(("one", "two"), COMPOSED, ids=lambda wounded: str(wounded))
def test_they_come_in_the_order_a_person_works_through(one: Wounded, two: Wounded) -> None:
    """What stops packets before what only slows them; what the whole cluster suffers from before what one node does;
    the way there before the way back."""
    causes = answer(one, two).causes
    order = [(SEVERITIES.index(cause.severity), cause.node != "", cause.leg == "reverse") for cause in causes]
    assert order == sorted(order)


def test_the_fifteen_are_fifteen_and_every_exception_is_one_of_theirs() -> None:
    assert len(MODES) == len(set(MODES)) == 15
    assert {frozenset({one.mode, two.mode}) for one, two in pairs()} == {
        frozenset({one, two}) for one in MODES for two in MODES if one != two
    }
    assert {mode for pair in HIDDEN for mode in pair} <= set(MODES)
