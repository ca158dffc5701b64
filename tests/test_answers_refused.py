"""Every wound once more on a real lab, asked about by people who may read all but one thing of the API each.

The answer to somebody who may read everything is looked at as well: it stands for the first place of each wound, the
others are asked about in tests/test_answers_on_lab.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from bot.errors import UserError
from facts import CalicoNode
from lab.client import Lab
from lab.errors import NamespacesForbidden
from lab.faults import families, load, names, needs, variant
from tests.asking import words_for
from tests.less_sight import without_each_resource
from tests.test_answers_on_lab import named_first
from tests.test_less_sight import weakened

NEEDED = {"pods", "services", "nodes"}  # without what was asked about there is no question; that is said, too
READ_EACH_TIME = {"pods", "nodes", "ippools", "ipamblocks", "clusterinformations", "felixconfigurations"}


@pytest.fixture(scope="module")
def labs(shared_lab: Lab) -> Iterator[Callable[[str], Lab]]:
    """A lab of a shape, as it was when it came up; each comes up once."""
    up = {"": shared_lab}
    with ExitStack() as stack:

        def of(shape: str) -> Lab:
            if shape not in up:
                try:
                    up[shape] = stack.enter_context(Lab.up(variant=shape, fixers=False))
                except NamespacesForbidden as error:
                    pytest.skip(error.sentence)
            up[shape].heal()
            return up[shape]

        yield of


@pytest.mark.parametrize("mode", names())
async def test_a_resource_the_api_server_refuses_is_told_and_blames_nobody_else(
    labs: Callable[[str], Lab], mode: str
) -> None:
    """Each resource the answer rests on; policies too, which are read wherever packets are lost."""
    if needs(mode):
        pytest.skip(f"{mode} needs {needs(mode)}, which no lab has; its case is written by hand")
    lab = labs(variant(mode))
    inflicted = lab.inflict(mode, where=load(mode).WHERE[0], family=families(mode)[0])
    words = words_for(inflicted)
    whole, answers = await without_each_resource(lab, words)
    named_first(whole, mode, inflicted["node"])
    assert set(answers) >= READ_EACH_TIME
    nodes = {fact.name for fact in whole.facts if isinstance(fact, CalicoNode)}
    of_node = bool(nodes & set(words.split()))
    for resource, answer in answers.items():
        if isinstance(answer, UserError):
            assert resource in NEEDED and resource in answer.sentence
            assert resource != "nodes" or of_node
            continue
        if resource == "services" and of_node:  # what is a node is no Service: nothing rests on them
            assert (answer.verdict, answer.causes) == (whole.verdict, whole.causes)
            continue
        # What only warns leaves the path healthy, and so does not seeing what only warnings rest on.
        weakened(answer, mode, whole.verdict, {warning.rule for warning in whole.warnings})
        assert [blind for blind in answer.blind if resource in f"{blind.look} {blind.reason}"], (resource, answer.blind)
