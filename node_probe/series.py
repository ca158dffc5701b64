"""More packets where a few tell too little: the largest size that passes, and what is lost only now and then."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import NamedTuple

import msgspec

from facts import Fact, LocalPod, NodeAsk, ProbeResult, SendProbe, Train
from node_probe.packets import (
    MOST,
    RESERVE_S,
    TELLING,
    Met,
    attempt,
    new_identity,
    open_sockets,
    or_blind,
    own_address,
    packet_size,
    patience,
    send,
    sender,
    smallest,
)
from node_probe.syn import port_of
from node_probe.view import View

HEAD_START_S = 0.1  # for full-size packets to come back before others are tried
SIZES = 12  # tried at a time: as many again divide what lies between those that pass and those that do not
MISS_S = 0.15  # at least, and this many round trips of a small packet: then a packet of the search has not passed
MISS_RTTS = 10
LONGEST_MISS_S = 0.3
PORTS_TOLD = 20
HEADERS_ALONE = 1  # byte: no packet is smaller than its headers


async def collect(ask: NodeAsk, view: View) -> AsyncIterator[Fact]:
    """A ProbeResult or a Train for each SendProbe, all at the same time; Blind for those that cannot be sent."""
    wanted = sum(probe.count * (2 if probe.every_ms else 1) for probe in ask.send)
    if wanted > MOST or any(probe.count < 1 for probe in ask.send):
        raise ValueError(
            f"{wanted} packets were asked for, at least one of each kind; a probe sends at most {MOST} at a time"
        )
    single = [(probe, asyncio.ensure_future(send(ask, probe, view))) for probe in ask.send if not probe.every_ms]
    small = {probe: sending for probe, sending in single if probe.protocol != "udp" and not probe.size}
    work = []
    for probe, sending in single:
        twin = small.get(msgspec.structs.replace(probe, size=0)) if probe.size else None
        work.append(_searched(ask, probe, view, sending, twin) if twin else sending)
    work += [or_blind(ask, probe, _train(ask, probe, view)) for probe in ask.send if probe.every_ms]
    for result in asyncio.as_completed(work):
        yield await result


# -- the largest size that passes


async def _searched(
    ask: NodeAsk, probe: SendProbe, view: View, full: asyncio.Future[Fact], small: asyncio.Future[Fact]
) -> Fact:
    """What full-size packets met. Where none of them came back and every small one did, also from which size on.

    That is looked for while the full-size ones still have time to come back: it makes no answer later.
    """
    await asyncio.wait({small})
    await asyncio.wait({full}, timeout=HEAD_START_S)
    passing = small.result()
    well = isinstance(passing, ProbeResult) and passing.answered == passing.sent > 0
    if not well or (full.done() and _came_back(full.result())):
        return await full
    assert isinstance(passing, ProbeResult)
    miss = min(LONGEST_MISS_S, max(MISS_S, MISS_RTTS * passing.rtt_us / 1e6))
    try:
        passes, stops = await _search(ask, probe, view, miss)
    except (OSError, ValueError):  # whatever keeps these from being sent, keeps the full-size ones too, and they say so
        return await full
    met = await full
    if _came_back(met) or not isinstance(met, ProbeResult):
        return met
    return msgspec.structs.replace(met, passes=passes, stops=stops)


def _came_back(fact: Fact) -> bool:
    return isinstance(fact, ProbeResult) and fact.answered > 0


async def _search(ask: NodeAsk, probe: SendProbe, view: View, miss: float) -> tuple[int, int]:
    """The largest size that passes and the smallest that does not, each seen twice; (0, 0) where it is not sizes that
    decide, (-1, -1) where time ran out. Some 40 packets for an MTU of 1500."""
    pod = sender(ask, probe)
    passes = smallest(probe)
    _, stops = await _try((), ask, probe, view, pod, miss)
    while stops - passes > 1:
        if view.deadline - time.monotonic() < miss + 2 * RESERVE_S:
            return -1, -1
        wide = stops - passes
        between = {passes + wide * place // (SIZES + 1) for place in range(1, SIZES + 1)} - {passes}
        answered, _ = await _try(sorted(between), ask, probe, view, pod, miss)
        passes = max(passes, *answered) if answered else passes
        stops = min([stops, *(size for size in between - answered if size > passes)])
    answered, _ = await _try((passes, stops, stops), ask, probe, view, pod, miss)
    return (passes, stops) if answered == {passes} else (0, 0)


async def _try(
    sizes: Sequence[int], ask: NodeAsk, probe: SendProbe, view: View, pod: LocalPod | None, miss: float
) -> tuple[set[int], int]:
    """The sizes that were answered, and the full size."""
    with contextlib.ExitStack() as opened:
        each = msgspec.structs.replace(probe, count=len(sizes))
        sockets, mtu = await asyncio.to_thread(open_sockets, each, pod, view)
        for one in sockets:
            opened.enter_context(one)
        sent = [attempt(one, probe, size, miss) for one, size in zip(sockets, sizes, strict=True)]
        met = await asyncio.gather(*sent)
    return {size for size, one in zip(sizes, met, strict=True) if one.outcome == "answered"}, packet_size(probe, mtu)


# -- trains


class _Wagon(NamedTuple):
    """One packet of a train: what it met, and what it was known by."""

    met: Met
    source: str
    identity: bytes

    @property
    def back(self) -> bool:
        return self.met.outcome in ("answered", "refused")


async def _train(ask: NodeAsk, probe: SendProbe, view: View) -> Train:
    """Of TCP only first packets, without data: connections would fill the queue of a server, and take its time."""
    if probe.protocol == "udp":
        raise ValueError("an UDP server need not answer, so its silence is no loss; a train is of icmp or tcp")
    if probe.protocol == "tcp":
        probe = msgspec.structs.replace(probe, size=HEADERS_ALONE)
    pod = sender(ask, probe)
    new: list[_Wagon | None] = [None] * probe.count
    first = await _run(new, ask, probe, view, pod)
    lost = [one for one in first if not one.back]
    second = await _run([*new, *lost], ask, probe, view, pod)
    fresh, retried = second[: probe.count], second[probe.count :]
    took = sorted(one.met.rtt_us for one in (*first, *fresh) if one.met.rtt_us >= 0)
    missed = [one.met.outcome for one in (*first, *fresh) if not one.back]
    return Train(
        node=ask.node,
        pod=probe.pod,
        source_address=next((one.source for one in first if one.source), pod.address if pod else ""),
        target_address=probe.target,
        protocol=probe.protocol,
        port=probe.port,
        sent=len(first),
        back=_back(first),
        sent_again=len(fresh),
        back_again=_back(fresh),
        retried=len(retried),
        retried_back=_back(retried),
        lost_ports=tuple(sorted(port_of(one.identity) for one in lost if probe.port)[:PORTS_TOLD]),
        outcome=max(missed, key=TELLING.index) if missed else "",
        rtt_us=took[(len(took) - 1) // 2] if took else -1,
        rtt_most_us=took[-1] if took else -1,
    )


def _back(wagons: Iterable[_Wagon]) -> int:
    return sum(one.back for one in wagons)


async def _run(
    wagons: Sequence[_Wagon | None], ask: NodeAsk, probe: SendProbe, view: View, pod: LocalPod | None
) -> list[_Wagon]:
    """One packet after the other, `every_ms` apart. None: a fresh one; else one known by the same as that one was."""
    each = msgspec.structs.replace(probe, count=len(wagons))
    with contextlib.ExitStack() as opened:
        sockets, mtu = await asyncio.to_thread(open_sockets, each, pod, view)
        for one in sockets:
            opened.enter_context(one)
        size = packet_size(probe, mtu)
        going = []
        for one, wagon in zip(sockets, wagons, strict=True):
            going.append(asyncio.ensure_future(_send_one(one, wagon, ask, probe, view, size)))
            await asyncio.sleep(probe.every_ms / 1000)
        return await asyncio.gather(*going)


async def _send_one(
    one: socket.socket, wagon: _Wagon | None, ask: NodeAsk, probe: SendProbe, view: View, size: int
) -> _Wagon:
    identity = wagon.identity if wagon else new_identity()
    timeout = max(0.0, min(patience(ask), view.deadline - time.monotonic() - RESERVE_S))
    met = await attempt(one, probe, size, timeout, identity)
    return _Wagon(met, own_address(one), identity)
