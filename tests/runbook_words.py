"""What the bot's commands may use in front of a lab; without it each test would connect in its own way."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import pytest

from bot.in_slack import Opened
from bot.investigate import Investigation, Means, investigate
from bot.settings import from_environment
from bot.sources.kubernetes import Cluster
from bot.sources.probes import Probes
from bot.terminal import opened
from bot.told import Context
from fixes.request import Person
from lab.client import Lab
from tests.asking import worker


@contextlib.asynccontextmanager
async def context_of(environment: Mapping[str, str]) -> AsyncGenerator[Opened]:
    """What the commands of a bot in front of this lab may use."""
    settings = from_environment(environment)
    async with Cluster(settings) as cluster, Probes(settings) as probes, opened(settings) as store:

        async def why(words: Sequence[str]) -> Investigation:
            return await investigate(words, Means(cluster, probes, worker()))

        def context(
            whoami: Callable[[], Awaitable[Person]], progress: Callable[[str], Awaitable[None]], written: str
        ) -> Context:
            return Context(
                cluster=cluster,
                probes=probes,
                store=store,
                settings=settings,
                whoami=whoami,
                investigate=why,
                progress=progress,
                written=written,
            )

        yield context


def terminal(lab: Lab, monkeypatch: pytest.MonkeyPatch, directory: Path) -> Path:
    """The directory of a terminal whose owner has this lab's kubeconfig: what commands write is there."""
    for name, value in lab.person().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(directory)
    lab.heal()
    return directory
