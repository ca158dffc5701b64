"""Asks a question the way the product does: real client, real probes, real engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bot.investigate import Investigation, Means, investigate
from bot.settings import from_environment
from bot.sources.kubernetes import Cluster
from bot.sources.probes import Probes
from engine.worker import Worker
from facts import Cause, Diagnosis
from lab.faults import beside, names

_worker: Worker | None = None


def worker() -> Worker:
    """One worker for all tests of a run: starting one costs more than most questions."""
    global _worker
    if _worker is None:
        _worker = Worker()
    return _worker


async def ask(environment: Mapping[str, str], words: str, *, state: Path | None = None) -> Investigation:
    """Answer `why WORDS` against the lab whose environment is given, as its bot does."""
    settings = from_environment(environment)
    async with Cluster(settings) as cluster, Probes(settings) as probes:
        return await investigate(words.split(), Means(cluster, probes, worker(), state))


def words_for(told: Mapping[str, str]) -> str:
    """The question a person would ask after `lab inflict`: the wounded pair, on a port its target serves if any."""
    port = "5432/tcp" if told["target"] == "shop/db" else "8080/tcp"
    return f"{told['source']} {told['target']} {told.get('port', port)}".strip()


def told(diagnosis: Diagnosis, mode: str = "") -> tuple[Cause, ...]:
    """What a person reads about a wound: the causes, or the warnings where the flow does not suffer from it.

    Of a failure mode that only makes another one worse, the warnings beside that one.
    """
    other = beside(mode) if mode in names() else ""
    if other and [cause.rule for cause in diagnosis.causes] == [other]:
        return diagnosis.warnings
    return diagnosis.causes or diagnosis.warnings
