"""Holds what passed against what the policies say, and looks again where they deny it; without it `why` would read
policies only where packets are lost, and a rule that is gone loses none.

It must not cost the answer it stands beside: it reads while the probes look, and what fails here is a minor Blind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from bot.errors import UserError
from bot.followed import kept
from bot.sources.kubernetes import Cluster
from bot.sources.policies import policies
from bot.sources.probes import Probes
from engine.bypass import STOOD_S, doubted, may_be_told
from engine.passage import loses
from engine.plan import expected_legs, passing
from facts import Blind, Fact, PoliciesRead, ProbeResult, StageSighting, say

PATIENCE_S = 1.0  # for the policies once the probes have answered: no healthy answer waits for them any longer

Progress = Callable[[str], Awaitable[None]]


async def read(cluster: Cluster, known: Sequence[Fact]) -> list[Fact]:
    """The policies about the question's pods, as `policies`; nothing where packets go from no pod to another."""
    if not any(map(may_be_told, expected_legs(known))):
        return []
    try:
        return await policies(cluster, known)
    except UserError as error:
        return [_blind(error.sentence)]
    except Exception as error:  # a second opinion must not cost the first one
        return [_blind(say("reading the policies failed: {error}", error=f"{type(error).__name__}: {error}"))]


async def compared(
    known: Sequence[Fact],
    seen: Sequence[Fact],
    reading: asyncio.Task[list[Fact]],
    *,
    cluster: Cluster,
    probes: Probes,
    addresses: Mapping[str, str],
    progress: Progress | None = None,
) -> list[Fact]:
    """What was seen, with what the policies say where they deny what passed; else with what could not be read of them.

    reading: of `read`.
    """
    await asyncio.wait([reading], timeout=PATIENCE_S)
    if not reading.done():
        return [*seen, _blind(say("the policies could not be read in time: whether they are enforced is not known"))]
    about = reading.result()
    legs = await asyncio.to_thread(doubted, [*known, *seen, *about])
    if not legs:
        return [*seen, *_blinds(about)]
    if progress is not None:
        await progress(say("policies deny what passes: looking again in {seconds} s", seconds=STOOD_S))
    await asyncio.sleep(STOOD_S)  # what was written or taken away just now Felix has programmed by then
    asks = passing(known, legs)
    found, later = await asyncio.gather(probes.ask(asks, addresses), read(cluster, known))
    if any(loses(leg, [one for one in found if isinstance(one, ProbeResult)]) for leg in legs):
        return [*_renewed(seen, found), *kept(asks, found), *later]
    if set(later) != set(about):
        return [*seen, *_blinds(later)]
    stood = [msgspec.structs.replace(one, stood_s=STOOD_S) if isinstance(one, PoliciesRead) else one for one in later]
    return [*seen, *stood, *(one for one in found if isinstance(one, StageSighting))]


def _renewed(seen: Sequence[Fact], found: Sequence[Fact]) -> list[Fact]:
    """With what packets met last in place of what the same ones met before."""
    last = {_kind(one): one for one in found if isinstance(one, ProbeResult)}
    return [last.get(_kind(one), one) if isinstance(one, ProbeResult) else one for one in seen]


def _kind(one: ProbeResult) -> tuple[str, str, str, str, int, int, bool]:
    return one.node, one.pod, one.target_address, one.protocol, one.port, one.size, one.answers


def _blinds(about: Sequence[Fact]) -> list[Fact]:
    return [one for one in about if isinstance(one, Blind)]


def _blind(reason: str) -> Blind:
    return Blind(look="policies", reason=reason, minor=True)
