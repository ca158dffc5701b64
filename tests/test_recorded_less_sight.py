"""Of every recorded wound less and less is seen: then less is said, nobody else accused, and nothing called well."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.diagnosis import diagnose
from engine.plan import plan
from facts import Fact, NodeAsk, SendProbe
from tests.exhaustive import Cells
from tests.recorded_answers import alive, cluster_of, known
from tests.recorded_heal import Run
from tests.test_heal_runs import RUNS, WOUNDS, modes_at

HIDDEN = Cells(every=10)  # kinds of facts, and nodes, of a recorded run


async def seen(run: Run, directory: Path) -> tuple[list[Fact], bool]:
    """All facts about a pair that is hurt right after the wound, and whether its pings were lost."""
    moment, between = run.moments[0], set(WOUNDS[run.fault].between)
    pair = min((pair for pair in moment.pinged if between <= pair), key=sorted)
    source, target = sorted(pair)
    lost = pair in moment.lost

    def met(ask: NodeAsk, probe: SendProbe) -> str:
        return "silence" if lost and probe.pod else "answered"

    async with cluster_of(moment.recording, directory) as cluster:
        facts = await known(cluster, run.pod(source), run.pod(target), family=run.family)
    looks = [fact for ask in plan(facts) for fact in moment.recording.answer(ask, met, alive(ask.node))]
    return [*facts, *looks], lost


@pytest.mark.parametrize("run", [run for run in RUNS if not run.moments[0].healed], ids=str)
async def test_without_one_kind_of_fact_or_one_node_nobody_else_is_accused(run: Run, tmp_path: Path) -> None:
    facts, lost = await seen(run, tmp_path)
    modes = set(modes_at(WOUNDS[run.fault], 0))
    kinds = {type(fact).__name__ for fact in facts}
    nodes = {getattr(fact, "node", "") for fact in facts} - {""}
    wrong = []
    for hidden in HIDDEN.of(str(run), sorted(kinds | nodes), str):
        diagnosis = diagnose([one for one in facts if hidden not in (type(one).__name__, getattr(one, "node", ""))])
        named = {cause.rule for cause in diagnosis.causes}
        if not named <= modes or (lost and diagnosis.verdict == "healthy"):
            wrong.append((hidden, diagnosis.verdict, named, diagnosis.summary))
    assert wrong == []
