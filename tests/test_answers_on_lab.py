"""The product's promise on a real kernel: every wound is named first and right, and a healthy pair is never accused."""

from __future__ import annotations

from itertools import product

import pytest

from lab.client import Lab
from lab.faults import load, names
from tests.asking import ask, words_for

PODS = ("shop/cart", "shop/web", "shop/db", "shop/queue", "shop/mail", "shop/search")
WOUNDS = [(mode, where) for mode in names() for where in load(mode).WHERE]


@pytest.mark.parametrize("source", PODS)
async def test_healthy_pairs_are_called_healthy(lab: Lab, source: str) -> None:
    """All ordered pairs, pods of one node included, with a port and without."""
    for target, port in product([pod for pod in PODS if pod != source], ("", " 8080/tcp", " 8080/udp")):
        diagnosis = (await ask(lab.environment(), f"{source} {target}{port}")).diagnosis
        assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ()), (
            target,
            port,
            diagnosis,
        )
        assert diagnosis.blind == ()


@pytest.mark.parametrize(("mode", "where"), WOUNDS)
async def test_every_wound_is_named_first_on_its_node(lab: Lab, mode: str, where: str) -> None:
    told = lab.inflict(mode, where=where)
    investigation = await ask(lab.environment(), words_for(told))
    diagnosis = investigation.diagnosis
    assert diagnosis.verdict == "cause", diagnosis.summary
    assert [cause.rule for cause in diagnosis.causes] == [mode]
    assert diagnosis.causes[0].node == told["node"]
