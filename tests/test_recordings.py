"""What a running Calico looked like, state by state: every pod pair of it gets the verdict that was true of it.

The lab is built from the recorded API objects; tests/test_lab_felix.py proves that its kernels equal the recorded ones.
"""

from __future__ import annotations

import asyncio
import json
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import pytest

from bot.investigate import investigate
from bot.settings import from_environment
from bot.sources.kubernetes import Cluster
from bot.sources.probes import Probes
from engine import rulebase
from facts import Diagnosis
from lab.client import Lab
from lab.errors import NamespacesForbidden
from tests.asking import worker

RECORDINGS = Path(__file__).resolve().parents[2] / "shared" / "fixtures" / "real-calico"
ALL_PAIRS = 8  # pods; of more than that only some are asked about
AT_ONCE = 8
HEALTHY = frozenset[str]()
NOT_SAID = frozenset({""})  # nothing recorded says why: the verdict is unknown
EVERY_NODE = ""


class State(NamedTuple):
    """The failure modes one of which must be named, alone; anything else named is a false accusation."""

    waiting: frozenset[str] = HEALTHY  # where a pod of the pair has no address yet
    hurt: frozenset[str] = HEALTHY  # between the node `at` and any other
    at: str = EVERY_NODE


EXHAUSTED = frozenset({"pool_exhausted", "strict_affinity_without_block"})
STATES = {
    "v3.31.7/healthy-always": State(),
    "v3.31.7/healthy-crosssubnet-same-subnet": State(),
    "v3.31.7/pool-disabled": State(hurt=frozenset({"pool_disabled"})),
    "v3.32.1/crosssubnet": State(),
    "v3.32.1/dualstack/healthy": State(),
    "v3.32.1/dualstack/status-podips-v4-only": State(),
    "v3.32.1/exhaustion/2-pods-borrowed": State(),
    "v3.32.1/exhaustion/3-strict-affinity": State(waiting=EXHAUSTED),
    "v3.32.1/exhaustion/4-strict-tunnel-lost": State(EXHAUSTED, frozenset({"tunnel_address_missing"}), "node-c"),
    # Borrowing was allowed again a moment before: the pool is not the reason any more, the pod only waits.
    "v3.32.1/exhaustion/6-strict-off": State(waiting=NOT_SAID),
    "v3.32.1/exhaustion/7-pool-full": State(waiting=frozenset({"pool_exhausted"})),
    "v3.32.1/healthy": State(),
    "v3.32.1/scale/5-blocks-one-node": State(),
    "master-87c15906f20c/healthy": State(),
    "master-87c15906f20c/pool-disabled": State(hurt=frozenset({"pool_disabled"})),
}
NOT_ASKED = {
    "v3.32.1/exhaustion/1-tunnel-borrowed": "no pod runs in it",
    "v3.32.1/scale/200-nodes": "202 nodes with a probe each take longer to start than all other states together",
}


class Pod(NamedTuple):
    name: str
    node: str
    address: str


def pods_of(recording: Path) -> list[Pod]:
    """Scheduled pods with a network of their own."""
    return [
        Pod(f"{one['metadata']['namespace']}/{one['metadata']['name']}", node, one["status"].get("podIP", ""))
        for one in json.loads((recording / "k8s" / "pods.json").read_text())["items"]
        if (node := one["spec"].get("nodeName")) and not one["spec"].get("hostNetwork")
    ]


def pairs_of(pods: list[Pod]) -> list[tuple[Pod, Pod]]:
    """All ordered pairs; of many pods the first of each ordered pair of nodes, a node with itself included."""
    pairs = list(permutations(pods, 2))
    if len(pods) <= ALL_PAIRS:
        return pairs
    return list({(source.node, target.node): (source, target) for source, target in reversed(pairs)}.values())


def wanted(state: State, source: Pod, target: Pod) -> frozenset[str]:
    if not (source.address and target.address):
        return state.waiting
    if source.node != target.node and state.at in (source.node, target.node, EVERY_NODE):
        return state.hurt
    return HEALTHY


async def asked(lab: Lab, pairs: list[tuple[Pod, Pod]]) -> list[Diagnosis]:
    """An answer a pair, some asked at once, all by one bot."""
    settings = from_environment(lab.environment())
    turn = asyncio.Semaphore(AT_ONCE)
    async with Cluster(settings) as cluster, Probes(settings) as probes:

        async def told(source: Pod, target: Pod) -> Diagnosis:
            async with turn:
                words = [source.name, target.name]
                return (await investigate(words, cluster=cluster, probes=probes, worker=worker())).diagnosis

        return await asyncio.gather(*(told(*pair) for pair in pairs))


@pytest.mark.parametrize("name", STATES)
async def test_every_pair_gets_the_verdict_that_was_true(name: str) -> None:
    recording = RECORDINGS / name
    if not recording.is_dir():
        pytest.skip(f"the recording {name} lies beside the checkout in shared/fixtures; it is not there")
    pairs = pairs_of(pods_of(recording))
    assert pairs
    try:
        lab = await asyncio.to_thread(Lab.up, objects=recording, fixers=False)
    except NamespacesForbidden as error:
        pytest.skip(error.sentence)
    with lab:
        answers = await asked(lab, pairs)
    wrong = []
    for (source, target), diagnosis in zip(pairs, answers, strict=True):
        named = {cause.rule for cause in diagnosis.causes}
        right = wanted(STATES[name], source, target)
        verdict = {HEALTHY: "healthy", NOT_SAID: "unknown"}.get(right, "cause")
        if diagnosis.verdict != verdict or len(named) > 1 or not named <= right:
            wrong.append((source.name, target.name, diagnosis.verdict, named, diagnosis.summary, diagnosis.blind))
    assert wrong == []


def test_every_recording_is_asked_or_listed_with_a_reason() -> None:
    if not RECORDINGS.is_dir():
        pytest.skip(f"the recordings of a running Calico are not here: {RECORDINGS}")
    found = {
        str(path.parent.relative_to(RECORDINGS)) for path in RECORDINGS.rglob("cr") if (path.parent / "k8s").is_dir()
    }
    assert found == STATES.keys() | NOT_ASKED.keys()


def test_every_failure_mode_of_the_table_exists() -> None:
    """Of each set one: a state nobody could name would be passed over."""
    known = {rule.name for rule in rulebase.load().rules}
    for name, state in STATES.items():
        for modes in (state.waiting, state.hurt):
            assert modes in (HEALTHY, NOT_SAID) or modes & known, name
