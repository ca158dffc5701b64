"""From question to diagnosis on one screen: without it nobody could say in which order the cluster is looked at."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from bot import unenforced
from bot.followed import kept, meanwhile, passed
from bot.kept_out import by_policies
from bot.leaks import with_routes
from bot.sources.bystanders import bystanders
from bot.sources.kubernetes import Cluster
from bot.sources.policies import policies
from bot.sources.probes import Probes
from bot.tracing import span
from bot.words import parse
from engine.plan import inside, plan, second
from engine.settling import asking, completed, late, longer
from engine.sights import strangers
from engine.trains import trains
from engine.worker import Worker
from facts import (
    Blind,
    CalicoNode,
    Diagnosis,
    DropReasons,
    Fact,
    RuleDrop,
    StageSighting,
    Train,
    listed,
    say,
)
from fixes.configuration import STATE_MIB

Progress = Callable[[str], Awaitable[None]]


class Outage(msgspec.Struct, frozen=True, kw_only=True):
    """Rounds one after the other in which packets were lost. Times are ISO 8601, UTC."""

    began: str
    ended: str = ""  # of the first good round again; "": it was not over
    sent: int
    lost: int


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the packets of a flow that was watched, of the asked kind."""

    seconds: float
    rounds: int
    unseen: int = 0  # of them, in which a probe told nothing
    packets: tuple[str, ...]  # kinds, such as "tcp 5432"
    sent: int
    lost: int
    rtt_us: int = -1  # of those that came back: the median of the rounds' medians
    rtt_most_us: int = -1
    first_lost: str = ""  # when the first round began of which a packet was lost; "": none was
    last_lost: str = ""
    outages: tuple[Outage, ...] = ()


class Investigation(msgspec.Struct, frozen=True, kw_only=True):
    """One question with its answer and everything the answer rests on."""

    id: str  # inv-YYYYMMDD-HHMMSS-xxxx, UTC
    cluster: str
    asked: str  # the words, such as "shop/cart shop/db 5432/tcp"
    asked_by: str = ""
    started: str  # ISO 8601, UTC
    elapsed_ms: int
    diagnosis: Diagnosis
    watched: Watched | None = None
    saved: str = ""  # file it can be read from again; "" when no state directory is configured
    not_saved: str = ""  # why saving failed


class Means(NamedTuple):
    """What questions are looked into with: one cluster with its probes, and the engine."""

    cluster: Cluster
    probes: Probes
    worker: Worker
    state: Path | None = None  # directory in which answers are kept; None: they are not
    state_mib: int = STATE_MIB


async def investigate(
    words: Sequence[str], means: Means, *, asked_by: str = "", progress: Progress | None = None
) -> Investigation:
    """Answer `why WORDS`. Raises UserError when the question cannot be asked or the cluster not be read at all."""
    cluster, probes, worker, state, state_mib = means
    began, started = time.monotonic(), datetime.datetime.now(datetime.UTC)
    asked = parse(words)

    await _tell(progress, say("looking up {source} and {target}", source=asked.source, target=asked.target))
    with span("cluster look-up"):
        known = await cluster.look(asked)

    asks = plan(known)
    nodes = [ask.node for ask in asks]
    await _tell(progress, say("asking {nodes}", nodes=listed(nodes)) if nodes else say("no node to ask"))
    addresses = {fact.name: fact.internal_address for fact in known if isinstance(fact, CalicoNode)}
    reading = asyncio.create_task(unenforced.read(cluster, known))
    mended = False
    try:
        seen = await probes.ask(asks, addresses)
        if waiting := asking(seen):
            await _tell(progress, say("waiting until {names} found the next hop", names=listed(list(waiting))))
            await asyncio.sleep(max(waiting.values()))
            seen = await probes.ask(asks, addresses)
        if busy := late(seen):
            await _tell(progress, say("asking {nodes} again, which took too long", nodes=listed(busy)))
            rest = longer(asks, seen)
            seen = completed(rest, seen, await probes.ask(rest, addresses))
        if again := second(known, seen):
            places = listed(list(dict.fromkeys(ask.node for ask in again)))
            await _tell(progress, say("following packets through the firewalls of {nodes}", nodes=places))
            # Read anew: what was read before the packets were sent may have been older than the rules.
            with span("packets followed"):
                followed, about = await asyncio.gather(probes.ask(again, addresses), policies(cluster, known))
            mended = passed(seen, followed)
            seen += [*kept(again, followed), *about]
            seen += await bystanders(cluster, strangers(known, seen))
            if within := inside(known, seen):
                pods = listed(list(dict.fromkeys(name for ask in within for name in ask.inside)))
                await _tell(progress, say("following packets inside {pods}", pods=pods))
                with span("packets followed inside pods"):
                    entered = await probes.ask(within, addresses)
                seen += [fact for fact in entered if isinstance(fact, RuleDrop) and fact.pod]
        else:
            seen = await unenforced.compared(
                known,
                seen,
                reading,
                cluster=cluster,
                probes=probes,
                addresses=addresses,
                progress=progress,
            )
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    if more := trains(known, seen):
        places = listed(list(dict.fromkeys(ask.node for ask in more)))
        await _tell(progress, say("sending more packets from {nodes}", nodes=places))
        with span("more packets"):
            seen += _more(await probes.ask(more, addresses), seen)

    seen += await by_policies(cluster, known, seen, probes.port)
    known = await with_routes(cluster, probes, known)
    await _tell(progress, say("judging"))
    with span("engine") as note:
        diagnosis = await asyncio.to_thread(worker.diagnose, [*known, *seen])
        note("verdict", diagnosis.verdict)
    if mended:
        diagnosis = meanwhile(diagnosis)

    answer = Investigation(
        id=f"inv-{started:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        cluster=cluster.name,
        asked=str(asked),
        asked_by=asked_by,
        started=started.isoformat(timespec="seconds"),
        elapsed_ms=round((time.monotonic() - began) * 1000),
        diagnosis=diagnosis,
    )
    return await asyncio.to_thread(save, answer, state, state_mib << 20) if state else answer


def _more(seen: Sequence[Fact], before: Sequence[Fact]) -> list[Fact]:
    """What tells of something that was not tried before; of trains also where their packets were met, which rule ended
    some of them, why the kernel drops packets meanwhile, and what could not be sent or seen of them."""
    told = {fact.node for fact in before if isinstance(fact, DropReasons)}
    found: list[Fact] = []
    for fact in seen:
        if isinstance(fact, StageSighting):
            found.append(msgspec.structs.replace(fact, train=True))
        elif isinstance(fact, RuleDrop):
            found.append(msgspec.structs.replace(fact, partly=True))
        elif isinstance(fact, DropReasons):
            found += [] if fact.node in told else [fact]
        elif isinstance(fact, Train):
            found.append(fact)
        elif isinstance(fact, Blind):  # the flow was seen before; whether it is well without these, `doubtful` says
            found.append(msgspec.structs.replace(fact, minor=True))
    return found


async def _tell(progress: Progress | None, text: str) -> None:
    if progress is not None:
        await progress(text)


def save(investigation: Investigation, state: Path, most: int = STATE_MIB << 20) -> Investigation:
    """The same with `saved` set to its file below `state`/investigations, or with `not_saved`. Blocks for a disk.

    most: bytes of disk, of which the newest are kept.
    """
    directory = state / "investigations"
    path = directory / f"{investigation.id}.json"
    saved = msgspec.structs.replace(investigation, saved=str(path))
    whole = path.with_suffix(".part")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        whole.write_bytes(msgspec.json.encode(saved))
        size = _on_disk(whole)
        whole.replace(path)
        _drop_the_oldest(directory, size, most)
    except OSError as error:
        with contextlib.suppress(OSError):
            whole.unlink()
        return msgspec.structs.replace(investigation, not_saved=f"{error.strerror or error}: {directory}")
    return saved


_kept: dict[Path, int] = {}  # bytes in a directory of investigations, as far as this process knows


def _drop_the_oldest(directory: Path, added: int, most: int) -> None:
    """Looks at the files only where there may be too much: there may be thousands."""
    if directory in _kept and _kept[directory] + added <= most:
        _kept[directory] += added
        return
    files: list[tuple[str, int]] = []
    with os.scandir(directory) as found:  # a Path for each of thousands would be megabytes
        for one in found:
            if one.name.startswith("inv-") and one.name.endswith(".json"):
                with contextlib.suppress(FileNotFoundError):  # another process may drop them, too
                    files.append((one.name, _on_disk(one)))
    files.sort(reverse=True)  # the names begin with the time
    total = sum(size for _, size in files)
    room = most - most // 8 if total > most else most  # not to look again at once
    while total > room and len(files) > 1:
        name, size = files.pop()
        (directory / name).unlink(missing_ok=True)
        total -= size
    _kept[directory] = total


def _on_disk(path: Path | os.DirEntry[str]) -> int:
    return path.stat().st_blocks * 512
