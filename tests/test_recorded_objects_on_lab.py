"""The lab made of recorded objects is answered about like the recording itself; else faults proved on it prove nothing.

tests/test_recorded_states.py judges the recorded kernels of every state; here our own kernels are judged, of some.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from itertools import pairwise, permutations
from pathlib import Path

import pytest

from bot.investigate import Means, investigate
from bot.settings import from_environment
from bot.sources.kubernetes import Cluster
from bot.sources.probes import Probes
from facts import Diagnosis
from lab.client import Lab
from lab.intent import ANNOTATION_FAKE
from tests.asking import worker
from tests.exhaustive import Cells
from tests.recorded_states import recorded
from tests.recordings import unpacked
from tests.test_recorded_states import STATES, Pod, pods_of, told, wanted

AT_ONCE = 8
ALL_PAIRS = 9  # pods; of more than that only some are asked about
ASKED = Cells(every=3)  # pairs of a state
ON_LAB = (
    "v3.31.7/pool-disabled",
    "v3.32.1/crosssubnet",
    "v3.32.1/dualstack/healthy",
    "v3.32.1/exhaustion/4-strict-tunnel-lost",
    "v3.32.1/scale/5-blocks-one-node",
    "master-87c15906f20c/healthy",
)


def pairs_of(pods: list[Pod]) -> list[tuple[Pod, Pod]]:
    """All ordered pairs; of many pods each with the next, both ways, and the first of each ordered pair of nodes, of a
    node with itself included."""
    pairs = list(permutations(pods, 2))
    if len(pods) <= ALL_PAIRS:
        return pairs
    of_nodes = {(source.node, target.node): (source, target) for source, target in reversed(pairs)}
    each = [pair for one, other in pairwise([*pods, pods[0]]) for pair in ((one, other), (other, one))]
    return list(dict.fromkeys([*of_nodes.values(), *each]))


async def asked(lab: Lab, pairs: list[tuple[Pod, Pod]]) -> list[Diagnosis]:
    """An answer a pair, some asked at once, all by one bot."""
    settings = from_environment(lab.environment())
    turn = asyncio.Semaphore(AT_ONCE)
    async with Cluster(settings) as cluster, Probes(settings) as probes:

        async def answer(source: Pod, target: Pod) -> Diagnosis:
            async with turn:
                words = [source.name, target.name]
                return (await investigate(words, Means(cluster, probes, worker()))).diagnosis

        return await asyncio.gather(*(answer(*pair) for pair in pairs))


@pytest.mark.parametrize("name", ON_LAB)
async def test_every_pair_gets_the_verdict_that_was_true(name: str) -> None:
    """The lab's kernels are all there, so that a pair is healthy also where the recording lacks a pod."""
    state = STATES[name]._replace(recorded=True)

    def kind(pair: tuple[Pod, Pod]) -> tuple[object, ...]:
        return name, pair[0].node == pair[1].node, wanted(state, *pair)

    pairs = ASKED.of(name, pairs_of(pods_of(recorded(name))), kind)
    assert pairs
    lab = await asyncio.to_thread(Lab.up, objects=unpacked(name), fixers=False)
    with lab:
        answers = await asked(lab, pairs)
    wrong = []
    for (source, target), diagnosis in zip(pairs, answers, strict=True):
        named = {cause.rule for cause in diagnosis.causes}
        verdict, modes = wanted(state, source, target)
        if diagnosis.verdict != verdict or len(named) != bool(modes) or not named <= modes:
            wrong.append(told(source.name, target.name, diagnosis))
    assert wrong == []


async def test_two_of_two_hundred_nodes_are_as_well_as_two_of_three(tmp_path: Path) -> None:
    """The others have blocks, tunnel addresses and entries in every table of the two, and no machine."""
    state = "v3.32.1/scale/200-nodes"
    pods = pods_of(recorded(state))
    shutil.copytree(unpacked(state), tmp_path, dirs_exist_ok=True)
    listed = tmp_path / "k8s" / "nodes.json"
    nodes = json.loads(listed.read_text())
    for one in nodes["items"]:
        if one["metadata"]["name"] not in {pod.node for pod in pods}:
            one["metadata"]["annotations"][ANNOTATION_FAKE] = "fake"
    listed.write_text(json.dumps(nodes))
    assert len(nodes["items"]) == 202 and len({pod.node for pod in pods}) == 2
    lab = await asyncio.to_thread(Lab.up, objects=tmp_path, fixers=False)
    ends = [*pods, *(Pod(pod.node, pod.node, "") for pod in pods)]
    pairs = [(source, target) for source, target in permutations(ends, 2) if source.node != target.node]
    with lab:
        answers = await asked(lab, pairs)
    odd = [
        told(source.name, target.name, one)
        for (source, target), one in zip(pairs, answers, strict=True)
        if one.verdict != "healthy" or one.warnings or one.blind
    ]
    assert odd == []
