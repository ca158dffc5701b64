"""Wounds that only a dual stack cluster can have: each is named first and right, on a real kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.client import Lab
from lab.errors import NamespacesForbidden
from lab.faults import families, load, names, variant
from tests.asking import ask, told, words_for

DUALSTACK = "dualstack"
WOUNDS = [(mode, where) for mode in names() if variant(mode) == DUALSTACK for where in load(mode).WHERE]


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    try:
        lab = Lab.up(variant=DUALSTACK)
    except NamespacesForbidden as error:
        pytest.skip(error.sentence)
    with lab:
        yield lab


@pytest.mark.parametrize(("mode", "where"), WOUNDS)
async def test_every_wound_is_named_first_on_its_node(shared: Lab, mode: str, where: str) -> None:
    shared.heal()
    inflicted = shared.inflict(mode, where=where, family=families(mode)[0])
    diagnosis = (await ask(shared.environment(), words_for(inflicted))).diagnosis
    assert diagnosis.verdict == "cause", diagnosis.summary
    assert [(cause.rule, cause.node) for cause in told(diagnosis, mode)] == [(mode, inflicted["node"])]


async def test_the_same_pair_is_healthy_in_both_families_once_the_wound_is_gone(shared: Lab) -> None:
    shared.heal()
    diagnosis = (await ask(shared.environment(), "shop/cart shop/db 5432/tcp")).diagnosis
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ()), diagnosis.summary
    assert {path.flow.rsplit(" ", 1)[-1] for path in diagnosis.path} == {"IPv4", "IPv6"}
