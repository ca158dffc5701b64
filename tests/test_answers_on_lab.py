"""The product's promise on a real kernel: every wound is named first and right, and a healthy pair is never accused."""

from __future__ import annotations

from itertools import permutations

import pytest

from engine import rulebase
from engine.rule import CauseRule
from facts import Diagnosis
from lab.client import Lab
from lab.faults import load, names, needs, variant
from tests import exhaustive
from tests.asking import ask, told, words_for

PODS = ("shop/cart", "shop/web", "shop/db", "shop/queue", "shop/mail", "shop/search")
PORTS = ("", "8080/tcp", "8080/udp")
RULES = {rule.name: rule for rule in rulebase.load().rules if isinstance(rule, CauseRule)}
# The first place of each is asked about in tests/test_answers_refused.py, with the same lab and by more people.
WOUNDS = [(mode, where) for mode in names() if not variant(mode) for where in load(mode).WHERE[1:]]


def named_first(diagnosis: Diagnosis, mode: str, node: str) -> None:
    """Told as a warning where the flow does not suffer; without a node where the whole cluster has it."""
    only_warns = RULES[mode].severity == "warns" or RULES[mode].last_resort
    met = diagnosis.summary, diagnosis.warnings, diagnosis.blind
    assert diagnosis.verdict == "cause" or (only_warns and diagnosis.verdict == "healthy"), met
    assert [cause.rule for cause in told(diagnosis, mode)] == [mode]
    assert told(diagnosis, mode)[0].node == ("" if RULES[mode].at is None else node)


@pytest.mark.parametrize(("source", "target", "port"), exhaustive.matrix(3, [*permutations(PODS, 2)], PORTS))
async def test_healthy_pairs_are_called_healthy(lab: Lab, source: str, target: str, port: str) -> None:
    """All ordered pairs, pods of one node included, with a port and without."""
    diagnosis = (await ask(lab.environment(), f"{source} {target} {port}")).diagnosis
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ()), diagnosis
    assert diagnosis.blind == ()


@pytest.mark.parametrize(("mode", "where"), exhaustive.one_in(4, WOUNDS))
async def test_every_wound_is_named_first_on_its_node(lab: Lab, mode: str, where: str) -> None:
    if needs(mode):
        pytest.skip(f"{mode} needs {needs(mode)}, which no lab has; its case is written by hand")
    inflicted = lab.inflict(mode, where=where)
    diagnosis = (await ask(lab.environment(), words_for(inflicted))).diagnosis
    named_first(diagnosis, mode, inflicted["node"])
