"""Every wound once more on a real lab, asked about by people who may read all but one thing of the API each.

The answer to somebody who may read everything is looked at as well: it stands for the first place of each wound, the
others are asked about in tests/test_answers_on_lab.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bot.errors import UserError
from facts import CalicoNode, Diagnosis
from lab.client import Lab
from lab.faults import families, load, names, needs, variant
from tests.asking import told, words_for
from tests.exhaustive import Cells
from tests.hand_written import ONLY_TOLD
from tests.less_sight import Some, without_each_resource, without_each_resource_of
from tests.recorded_wounds import PAIR, wounded
from tests.test_answers_on_lab import named_first
from tests.test_less_sight import weakened

NEEDED = {"pods", "services", "nodes"}  # without what was asked about there is no question; that is said, too
READ_EACH_TIME = {"pods", "nodes", "ippools", "ipamblocks", "clusterinformations", "felixconfigurations"}
REFUSED = Cells(every=24)  # resources, for each failure mode


@pytest.mark.parametrize("mode", [mode for mode in names() if not needs(mode)])
async def test_a_resource_the_api_server_refuses_is_told_and_blames_nobody_else(
    labs: Callable[[str], Lab], mode: str
) -> None:
    """Each resource the answer rests on; policies too, which are read wherever packets are lost."""
    lab = labs(variant(mode))
    inflicted = lab.inflict(mode, where=load(mode).WHERE[0], family=families(mode)[0])
    words = words_for(inflicted)
    whole, answers = await without_each_resource(lab, words, some(mode))
    named_first(whole, mode, inflicted["node"])
    only_weakened(words, mode, whole, answers)


@pytest.mark.parametrize("node", PAIR)
@pytest.mark.parametrize("mode", [mode for mode in names() if needs(mode)])
async def test_so_it_is_with_the_wounds_that_no_lab_can_have(mode: str, node: str, tmp_path: Path) -> None:
    """A recorded cluster is wounded instead; its objects are served, and read, as any lab's are."""
    hurt = wounded(mode, node)
    words = " ".join(PAIR.values())
    whole, answers = await without_each_resource_of(
        hurt.recording, hurt.answer, words, tmp_path, some(f"{mode} {node}")
    )
    assert whole.verdict == ("unknown" if mode in ONLY_TOLD else "cause"), whole.summary
    assert [(cause.rule, cause.node) for cause in told(whole, mode)] == [(mode, node)]
    only_weakened(words, mode, whole, answers)


def some(row: str) -> Some:
    def chosen(resources: list[str]) -> list[str]:
        assert set(resources) >= READ_EACH_TIME
        return REFUSED.of(row, resources, str)

    return chosen


def only_weakened(words: str, mode: str, whole: Diagnosis, answers: Mapping[str, Diagnosis | UserError]) -> None:
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
