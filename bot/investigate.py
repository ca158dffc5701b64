"""From question to diagnosis on one screen: without it nobody could say in which order the cluster is looked at."""

from __future__ import annotations

import asyncio
import datetime
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from bot.sources.bystanders import bystanders
from bot.sources.kubernetes import Cluster
from bot.sources.policies import policies
from bot.sources.probes import Probes
from bot.words import parse
from engine.large import large
from engine.plan import plan, second
from engine.sights import strangers
from engine.trains import trains
from engine.worker import Worker
from facts import (
    Blind,
    CalicoNode,
    Diagnosis,
    DropReasons,
    Fact,
    FirewallTrace,
    NodeAsk,
    ProbeResult,
    RuleDrop,
    StageSighting,
    Train,
    listed,
    say,
)

KEPT = 100

Progress = Callable[[str], Awaitable[None]]


class Investigation(msgspec.Struct, frozen=True, kw_only=True):
    """One question with its answer and everything the answer rests on."""

    id: str  # inv-YYYYMMDD-HHMMSS-xx, UTC
    cluster: str
    asked: str  # the words, such as "shop/cart shop/db 5432/tcp"
    asked_by: str = ""
    started: str  # ISO 8601, UTC
    elapsed_ms: int
    diagnosis: Diagnosis
    saved: str = ""  # file it can be read from again; "" when no state directory is configured
    not_saved: str = ""  # why saving failed


async def investigate(
    words: Sequence[str],
    *,
    cluster: Cluster,
    probes: Probes,
    worker: Worker,
    asked_by: str = "",
    progress: Progress | None = None,
    state: Path | None = None,
) -> Investigation:
    """Answer `why WORDS`. Raises UserError when the question cannot be asked or the cluster not be read at all."""
    began, started = time.monotonic(), datetime.datetime.now(datetime.UTC)
    asked = parse(words)

    await _tell(progress, say("looking up {source} and {target}", source=asked.source, target=asked.target))
    known = await cluster.look(asked)

    asks = plan(known)
    nodes = [ask.node for ask in asks]
    await _tell(progress, say("asking {nodes}", nodes=listed(nodes)) if nodes else say("no node to ask"))
    addresses = {fact.name: fact.internal_address for fact in known if isinstance(fact, CalicoNode)}
    seen = await probes.ask(asks, addresses)
    if again := second(known, seen):
        places = listed(list(dict.fromkeys(ask.node for ask in again)))
        await _tell(progress, say("following packets through the firewalls of {nodes}", nodes=places))
        followed, about = await asyncio.gather(probes.ask(again, addresses), policies(cluster, known))
        seen += [*_followed(again, followed), *about]
        seen += await bystanders(cluster, strangers(known, seen))

    if more := [*trains(known, seen), *large(known, seen)]:
        places = listed(list(dict.fromkeys(ask.node for ask in more)))
        await _tell(progress, say("sending more packets from {nodes}", nodes=places))
        seen += [fact for fact in await probes.ask(more, addresses) if _is_more(fact)]

    await _tell(progress, say("judging"))
    diagnosis = await asyncio.to_thread(worker.diagnose, [*known, *seen])

    answer = Investigation(
        id=f"inv-{started:%Y%m%d-%H%M%S}-{secrets.token_hex(1)}",
        cluster=cluster.name,
        asked=str(asked),
        asked_by=asked_by,
        started=started.isoformat(timespec="seconds"),
        elapsed_ms=round((time.monotonic() - began) * 1000),
        diagnosis=diagnosis,
    )
    return save(answer, state) if state else answer


def _followed(asks: Sequence[NodeAsk], seen: Sequence[Fact]) -> list[Fact]:
    """What firewalls did and where packets were met, and nothing else: of the rest there is a first look already, taken
    at one moment."""
    found: list[Fact] = []
    for ask in asks:
        own = [fact for fact in seen if getattr(fact, "node", "") == ask.node]
        told = [fact for fact in own if isinstance(fact, RuleDrop | FirewallTrace) or _about_firewall(fact)]
        if not told:
            failed = next((fact.reason for fact in own if isinstance(fact, Blind) and fact.look == "probe"), "")
            unable = say("its probe is of a version that follows no packets through the firewall")
            told = [Blind(node=ask.node, look="firewall trace", reason=failed or unable, minor=True)]
        if any(one.size for one in ask.send):  # smaller ones are sent beside them: only a rule that dropped one tells
            found += [fact for fact in told if isinstance(fact, RuleDrop)]
            continue
        found += [*told, *(fact for fact in own if isinstance(fact, StageSighting | DropReasons))]
    return list(dict.fromkeys(found))


def _is_more(fact: Fact) -> bool:
    """Does it tell of something that the first look did not try?"""
    return isinstance(fact, Train) or (isinstance(fact, ProbeResult) and fact.protocol == "tcp" and fact.size > 0)


def _about_firewall(fact: Fact) -> bool:
    return isinstance(fact, Blind) and fact.look.startswith("firewall")


async def _tell(progress: Progress | None, text: str) -> None:
    if progress is not None:
        await progress(text)


def save(investigation: Investigation, state: Path) -> Investigation:
    """The same with `saved` set to its file below `state`/investigations (the newest KEPT), or with `not_saved`."""
    directory = state / "investigations"
    path = directory / f"{investigation.id}.json"
    saved = msgspec.structs.replace(investigation, saved=str(path))
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        whole = path.with_suffix(".part")
        whole.write_bytes(msgspec.json.encode(saved))
        whole.replace(path)
        for old in sorted(directory.glob("inv-*.json"))[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        return msgspec.structs.replace(investigation, not_saved=f"{error.strerror or error}: {directory}")
    return saved
