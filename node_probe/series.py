"""More packets where a few tell too little: the largest size that passes, and what is lost only now and then."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Any

import msgspec

from facts import Blind, Fact, LocalPod, NodeAsk, ProbeResult, SendProbe, Train
from node_probe import large, past, syn
from node_probe.filters import SO_TIMESTAMPNS, met_ns
from node_probe.packets import (
    ENOUGH,
    MOST,
    OF_ANSWER,
    RESERVE_S,
    SMALL,
    TELLING,
    Met,
    attempt,
    family_of,
    new_identity,
    objected,
    objections,
    open_sockets,
    or_blind,
    own_address,
    packet_size,
    patience,
    ping,
    pinged,
    refused,
    sender,
    smallest,
)
from node_probe.sizes import longest_miss, search
from node_probe.view import View

HEAD_START_S = 0.1  # for full-size packets to come back before others are tried
PORTS_TOLD = 20
HEADERS_ALONE = 1  # byte: no packet is smaller than its headers
TRAIN_PATIENCE_S = 0.5  # without any answer, behind the last packet
LATEST_S = 0.9  # a server's kernel repeats its answer after a second: that one would hide the loss


async def collect(ask: NodeAsk, view: View) -> AsyncIterator[Fact]:
    """A ProbeResult or a Train for each SendProbe, all at the same time; Blind for those that cannot be sent, and
    nothing for large ones of which nothing can be said."""
    wanted = sum(probe.count * (2 if probe.every_ms and not probe.once else 1) for probe in ask.send)
    if wanted > MOST or any(probe.count < 1 for probe in ask.send):
        raise ValueError(
            f"{wanted} packets were asked for, at least one of each kind; a probe sends at most {MOST} at a time"
        )
    plain = [probe for probe in ask.send if not (probe.every_ms or probe.large)]
    single = [(probe, asyncio.ensure_future(past.send(ask, probe, view))) for probe in plain]
    small = {probe: sending for probe, sending in single if probe.protocol != "udp" and not probe.size}
    full = [(probe, asyncio.ensure_future(large.full_size(ask, probe, view))) for probe in ask.send if probe.large]
    work: list[Awaitable[Fact | None]] = [_if_sent(probe, sending, single) for probe, sending in full]
    for probe, sending in single:
        twin = small.get(msgspec.structs.replace(probe, size=0)) if probe.size else None
        work.append(_searched(ask, probe, view, sending, twin) if twin else sending)
    before = [sending for _, sending in (*single, *full)]
    trains = [(probe, _train_after(before, ask, probe, view)) for probe in ask.send if probe.every_ms]
    work += [_if_sent(probe, sending, single) for probe, sending in trains]
    for result in asyncio.as_completed(work):
        if found := await result:
            yield found


async def _if_sent(
    probe: SendProbe, sending: Awaitable[Fact | None], single: Sequence[tuple[SendProbe, asyncio.Future[Fact]]]
) -> Fact | None:
    """Nothing where single ones of the kind could not be sent either, or would not have met the target."""
    fact = await sending
    kind = msgspec.structs.replace(probe, size=0, large="", count=2, every_ms=0, once=False)
    for one, alone in single:
        if msgspec.structs.replace(one, count=2) == kind and one.port and _says_nothing_of_others(await alone):
            return None
    return fact


def _says_nothing_of_others(single: Fact) -> bool:
    """Were they not sent, or past a proxy that the others would meet?"""
    return isinstance(single, Blind) or (isinstance(single, ProbeResult) and single.past_proxy)


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
    try:
        miss = longest_miss(passing.rtt_us)
        passes, stops = await _search(ask, probe, view, miss, lambda: full.done() and _came_back(full.result()))
    except (OSError, ValueError):  # whatever keeps these from being sent, keeps the full-size ones too, and they say so
        return await full
    met = await full
    if _came_back(met) or not isinstance(met, ProbeResult):
        return met
    return msgspec.structs.replace(met, passes=passes, stops=stops)


def _came_back(fact: Fact) -> bool:
    return isinstance(fact, ProbeResult) and fact.answered > 0


async def _search(
    ask: NodeAsk, probe: SendProbe, view: View, miss: float, needless: Callable[[], bool]
) -> tuple[int, int]:
    """The largest size that passes, and the smallest that does not."""
    pod = sender(ask, probe)

    async def tried(sizes: Sequence[int]) -> set[int]:
        answered, _ = await _try(sizes, ask, probe, view, pod, miss)
        return answered

    _, full = await _try((), ask, probe, view, pod, miss)
    return await search(tried, smallest(probe), full, view.deadline, miss, needless=needless)


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


async def _train_after(before: Collection[asyncio.Future[Any]], ask: NodeAsk, probe: SendProbe, view: View) -> Fact:
    """A limit of so many packets in a second must not end the single ones for the train beside them."""
    if before:
        await asyncio.wait(before, timeout=HEAD_START_S)
    return await or_blind(ask, probe, _train(ask, probe, view))


async def _train(ask: NodeAsk, probe: SendProbe, view: View) -> Train:
    """Of TCP only first packets, without data: connections would fill the queue of a server, and take its time."""
    if probe.protocol == "udp":
        raise ValueError("an UDP server need not answer, so its silence is no loss; a train is of icmp or tcp")
    if probe.protocol == "tcp":
        probe = msgspec.structs.replace(probe, size=HEADERS_ALONE)
    pod = sender(ask, probe)
    first = await _run(_identities(probe.count), ask, probe, view, pod)
    fresh: dict[bytes, Met] = {}
    retried: dict[bytes, Met] = {}
    lost = [identity for identity, one in first.met.items() if not _back(one)]
    if not probe.once:
        new = _identities(probe.count, known=first.met)
        second = await _run([*new, *lost], ask, probe, view, pod)
        fresh = {identity: second.met[identity] for identity in new if identity in second.met}
        retried = {identity: second.met[identity] for identity in lost if identity in second.met}
    met = [*first.met.values(), *fresh.values()]
    took = sorted(one.rtt_us for one in met if one.rtt_us >= 0)
    missed = [one.outcome for one in met if not _back(one)]
    return Train(
        node=ask.node,
        pod=probe.pod,
        source_address=first.source or (pod.address if pod else ""),
        target_address=probe.target,
        protocol=probe.protocol,
        port=probe.port,
        sent=len(first.met),
        back=sum(map(_back, first.met.values())),
        sent_again=len(fresh),
        back_again=sum(map(_back, fresh.values())),
        retried=len(retried),
        retried_back=sum(map(_back, retried.values())),
        lost_ports=tuple(sorted(map(syn.port_of, lost))[:PORTS_TOLD]) if probe.port else (),
        outcome=max(missed, key=TELLING.index) if missed else "",
        rtt_us=took[(len(took) - 1) // 2] if took else -1,
        rtt_most_us=took[-1] if took else -1,
    )


def _back(one: Met) -> bool:
    return one.outcome in ("answered", "refused")


def _identities(count: int, known: Collection[bytes] = ()) -> list[bytes]:
    """Each with a port of its own, where packets have one, which none of those that are known has."""
    taken = set(map(syn.port_of, known))
    some = random.sample(range(syn.PORTS), count + len(taken))
    free = [port for port in some if syn.LOWEST_PORT + port not in taken][:count]
    above = [int.from_bytes(new_identity(), "big") // syn.PORTS * syn.PORTS for _ in range(count)]
    return [(high + port).to_bytes(4, "big") for high, port in zip(above, free, strict=True)]


async def _run(identities: Sequence[bytes], ask: NodeAsk, probe: SendProbe, view: View, pod: LocalPod | None) -> _Run:
    """One packet after the other, `every_ms` apart, all from one socket."""
    each = msgspec.structs.replace(probe, count=1)
    with contextlib.ExitStack() as opened:
        sockets, _ = await asyncio.to_thread(open_sockets, each, pod, view)
        for one in sockets:
            opened.enter_context(one)
        run = _Run(sockets[0], probe, min(patience(ask), TRAIN_PATIENCE_S))
        opened.callback(run.close)
        began = time.monotonic()
        for number, identity in enumerate(identities):
            # Who was kept from running catches up: a busy node makes no train longer.
            await asyncio.sleep(max(0.0, began + number * probe.every_ms / 1000 - time.monotonic()))
            run.send(identity)
        await run.wait(view.deadline - RESERVE_S)
        return run


class _Run:
    """Sends packets of a train and knows what each of them met. To be closed before its socket is; one event loop."""

    def __init__(self, one: socket.socket, probe: SendProbe, timeout: float) -> None:
        """one: of `open_sockets`. timeout: for any answer once the last packet was sent, s. Raises OSError."""
        self.met: dict[bytes, Met] = {}
        self._probe, self._family = probe, family_of(probe)
        self._timeout = timeout
        self._heard_ns = 0  # the last answer
        self._sent_ns: dict[bytes, int] = {}
        self._by_port: dict[int, bytes] = {}
        self._missing: set[bytes] = set()
        self._all_back = asyncio.Event()
        self._socket = one
        one.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        if probe.protocol == "tcp":
            syn.listen(one, probe.target)
        else:
            one.connect((probe.target, 0))  # what others answer or say is not for this socket
        self.source = own_address(one)
        asyncio.get_running_loop().add_reader(one, self._read)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)

    def send(self, identity: bytes) -> None:
        """A packet that is told by these four bytes."""
        probe = self._probe
        if probe.protocol == "tcp":
            packet = syn.packet(self._socket, probe.target, probe.port, b"", identity)
        else:
            packet = ping(self._family, len(SMALL), identity)
        self._by_port[syn.port_of(identity)] = identity
        self._sent_ns[identity] = time.time_ns()
        self._missing.add(identity)
        self.met[identity] = Met("silence")
        for again in (True, False):  # an error may be about an earlier packet
            try:
                self._socket.send(packet)
                return
            except BlockingIOError:  # there was no room for it: it was not sent, and so it is nobody's loss
                del self.met[identity]
                self._missing.discard(identity)
                return
            except OSError as error:
                if not again or not self._object():
                    self._take(identity, refused(probe, error))
                    return

    async def wait(self, deadline: float) -> None:
        """Until all are back or nothing has come for the whole time-out; not past `deadline` (time.monotonic, s).

        A queue on the way that grows brings answers later and later: what comes late is not lost.
        """
        sent_ns = max(self._sent_ns.values(), default=0)
        self._settle()
        while True:
            self._read()  # a probe that was itself kept from running still finds what has come meanwhile
            until = min(max(sent_ns, self._heard_ns) / 1e9 + self._timeout, sent_ns / 1e9 + LATEST_S)
            left = min(until - time.time(), deadline - time.monotonic())
            if left <= 0 or self._all_back.is_set():
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._all_back.wait()
        waited_since = time.time_ns() - self._timeout * ENOUGH * 1e9
        for identity in [one for one in self._missing if self._sent_ns[one] > waited_since]:  # nor is this one lost
            del self.met[identity]
            self._missing.discard(identity)

    def _read(self) -> None:
        while True:
            try:
                answer, told, _, _ = self._socket.recvmsg(OF_ANSWER, 128)
            except BlockingIOError:
                break
            except OSError:  # about a packet of some ping's; whose, the queue of errors says
                continue
            identity, no = self._about(answer)
            if identity in self._missing:
                came_ns = met_ns(told)
                took_ns = came_ns - self._sent_ns[identity]
                if took_ns <= LATEST_S * 1e9:
                    self._heard_ns = max(self._heard_ns, came_ns)
                    met = refused(self._probe, ConnectionRefusedError(errno.ECONNREFUSED, "reset")) if no else None
                    self._take(identity, met or Met("answered", rtt_us=max(1, took_ns // 1000)))
        self._object()

    def _about(self, answer: bytes) -> tuple[bytes, bool]:
        """Which packet this answers, and whether it refuses."""
        if self._probe.protocol != "tcp":
            return pinged(self._family, answer), False
        # Where an earlier packet from that port left a connection half open, the answer speaks of that one.
        segment = syn.read(self._socket, answer)
        return self._by_port.get(segment.target, b"") if segment.source == self._probe.port else b"", segment.refuses

    def _object(self) -> bool:
        """Takes the ICMP errors that have come. True: there were some."""
        some = False
        for one in objections(self._socket, self._family):
            some = True
            identity = one.about[4:8]  # id and number of a ping, sequence number of TCP
            if identity in self._missing:
                self._take(identity, objected(self._probe, one))
        return some

    def _take(self, identity: bytes, met: Met) -> None:
        self.met[identity] = met
        self._missing.discard(identity)
        self._settle()

    def _settle(self) -> None:
        if not self._missing:
            self._all_back.set()
        else:
            self._all_back.clear()
