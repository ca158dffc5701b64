"""Asks a recorded state as the product would: the real API client, plan and rules; only the probe is a recording."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from bot.sources.kubernetes import Cluster
from bot.sources.policies import policies
from bot.words import parse
from engine.diagnosis import diagnose
from engine.plan import plan, second
from facts import Diagnosis, Fact, FelixHealth, Question, Trace
from tests.recorded import served
from tests.recorded_kernel import Packets, Recording


def alive(node: str) -> FelixHealth:
    """A Felix that answers well."""
    return FelixHealth(node=node, reachable=True, live=True, ready=True)


def stopped(node: str) -> FelixHealth:
    """Nobody listens where Felix should, and seconds later neither."""
    return FelixHealth(node=node, reachable=False, detail="nothing listens on 127.0.0.1:9099", confirmed=True)


@contextlib.asynccontextmanager
async def cluster_of(recording: Recording, directory: Path) -> AsyncIterator[Cluster]:
    """The recorded objects behind an API server, which is asked the same thing once: nobody changes them meanwhile."""
    told: dict[tuple[str, tuple[tuple[str, str | int], ...]], tuple[int, bytes]] = {}
    async with served(recording.objects, directory) as world, world.cluster() as cluster:
        send = cluster.api._send

        async def once(path: str, query: dict[str, str | int]) -> tuple[int, bytes]:
            asked = path, tuple(query.items())
            if asked not in told:
                told[asked] = await send(path, query)
            return told[asked]

        cluster.api._send = once  # type: ignore[method-assign]
        yield cluster


async def known(cluster: Cluster, source: str, target: str, *, family: int = 0) -> list[Fact]:
    """What the API says for this question, target with its port where one is asked ("shop/db 5432/tcp").

    family: only that one, as if its address had been asked for.
    """
    facts = await cluster.look(parse([source, *target.split()]))
    return [msgspec.structs.replace(one, family=family) if isinstance(one, Question) else one for one in facts]


async def followed(
    cluster: Cluster,
    facts: list[Fact],
    recording: Recording,
    packets: Packets,
    firewall: Callable[[str, Trace], Sequence[Fact]],
) -> Diagnosis:
    """The same with the second look: policies, and what a recorded firewall of a node did with packets.

    firewall: (node, packets) -> what following them there tells.
    """
    seen = [fact for ask in plan(facts) for fact in recording.answer(ask, packets, alive(ask.node))]
    again = second(facts, seen)
    told = [fact for ask in again for packet in ask.trace for fact in firewall(ask.node, packet)]
    about = await policies(cluster, facts) if again else []
    return diagnose([*facts, *seen, *told, *about])


def judged(facts: list[Fact], recording: Recording, packets: Packets, *, stopped_on: str = "") -> Diagnosis:
    """The verdict on what the API and the recorded nodes say. stopped_on: a node without Felix."""
    seen = [
        fact
        for ask in plan(facts)
        for fact in recording.answer(ask, packets, stopped(ask.node) if ask.node == stopped_on else alive(ask.node))
    ]
    return diagnose([*facts, *seen])
