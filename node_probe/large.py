"""Full-size packets of the asked port, there and back; without them a rule that drops only large ones of TCP or UDP
would go unseen, for pings pass.

What is sent is what a server ignores (syn.py), or a datagram of this program's own text. Two small ones come first: by
what answers them it is known how large a packet the two ends would use, and that whoever is on the way lets data in a
first packet pass. Only then a large one that is lost says something. What is to come back in full size, and any
datagram, is answered by the probe at the target (answering.py): a server need not.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from facts import Fact, LocalPod, NodeAsk, ProbeResult, SendProbe
from node_probe import syn
from node_probe.namespaces import CannotEnter
from node_probe.netlink_messages import NetlinkError
from node_probe.packets import (
    OF_ANSWER,
    SMALL,
    Met,
    NoTime,
    family_of,
    heard,
    met_by,
    new_identity,
    no_time,
    open_sockets,
    own_address,
    patience,
    result,
    sender,
    wait_s,
)
from node_probe.sizes import longest_miss, search
from node_probe.view import View

# By way: what is sent, and what the probe at the target answers. They are told apart on their way.
TEXTS = {
    "there": (SMALL, b"calico-why reply, please ignore."),
    "back": (b"calico-why fetch, please ignore.", b"calico-why bring, please ignore."),
}
TEXT = len(SMALL)  # each of them
ASKED = struct.Struct("!8sH")  # behind it: whose question it is; how large the answer is to be, 0: small
TOLD = struct.Struct("!8sH")  # behind that: whose question it is; the largest packet that the target could answer with
HEADERS = {"tcp": syn.LENGTH, "udp": 8}
BARE_TCP = 20  # what MSS reckons with
HEAD_START_S = 0.1  # for full-size packets to come back before others are tried
SURE = 3  # of the largest size that passes, and of the smallest that does not
TRIES = 3  # of the small ones, within the time that an answer is waited for: the target's probe may be a little late


def nonce(ask: NodeAsk) -> bytes:
    """By which the probes of both ends know what belongs to one question."""
    with contextlib.suppress(ValueError):
        if len(found := bytes.fromhex(ask.mark)) == ASKED.size - 2:
            return found
    return bytes(ASKED.size - 2)


def text_of(start: bytes, behind: bytes, length: int) -> bytes:
    """So many bytes of data, at least these two parts."""
    data = start + behind
    return data + (SMALL * (max(0, length - len(data)) // len(SMALL) + 1))[: max(0, length - len(data))]


def smallest(probe: SendProbe) -> int:
    return family_of(probe).header + HEADERS[probe.protocol] + TEXT + ASKED.size


@dataclass
class _Exchanges:
    """Sends single packets for one SendProbe."""

    ask: NodeAsk
    probe: SendProbe
    view: View
    pod: LocalPod | None
    mtu: int = 0
    source: str = ""
    fits: int = 0  # bytes of the largest packet that the other end takes, or sends, as it told

    @property
    def back(self) -> bool:
        return self.probe.large == "back"

    async def run(self, sizes: Sequence[int], wanted: float) -> Sequence[Met]:
        """One packet of each of these sizes, or one that asks for an answer of that size; 0: as small as can be.

        wanted: how long each is waited for, s. Raises NoTime, OSError, CannotEnter.
        """
        with contextlib.ExitStack() as opened:
            each = msgspec.structs.replace(self.probe, count=len(sizes))
            made = partial(open_sockets, each, self.pod, self.view, beside=partial(self._bound, len(sizes)))
            several, self.mtu = await asyncio.to_thread(made)
            for one in several:
                opened.enter_context(one)
            sockets = several[: len(sizes)]
            ports = [one.getsockname()[1] for one in several[len(sizes) :]] or [0] * len(sizes)
            timeout = wait_s(wanted, self.view)
            sent = [
                met_by(one, self.probe, self._exchange(one, port, size), timeout)
                for one, port, size in zip(sockets, ports, sizes, strict=True)
            ]
            met = await asyncio.gather(*sent)
            self.source = next((name for name in map(own_address, sockets) if name), self.source)
        return heard(met, timeout, wanted)

    def _bound(self, count: int) -> list[socket.socket]:
        """Whose ports packets of TCP are sent from: the kernel gives these to nobody else meanwhile. Firewalls know old
        ones for a while, and would let them pass or not as they did then: there are to be many. Raises OSError."""
        if self.probe.protocol != "tcp":
            return []
        with contextlib.ExitStack() as made:
            number = family_of(self.probe).number
            some = [made.enter_context(socket.socket(number, socket.SOCK_STREAM)) for _ in range(count)]
            for one in some:
                one.bind(("", 0))
            made.pop_all()
        return some

    async def _exchange(self, one: socket.socket, port: int, size: int) -> None:
        family = family_of(self.probe)
        headers = family.header + HEADERS[self.probe.protocol]
        wanted = size if self.back else 0
        asked = ASKED.pack(nonce(self.ask), wanted)
        sends, answers = TEXTS[self.probe.large]
        data = text_of(sends, asked, 0 if self.back else size - headers)
        mine = answers + nonce(self.ask)
        if self.probe.protocol == "udp":
            one.connect((self.probe.target, self.probe.port))
            one.send(data)
            while not (said := await asyncio.get_running_loop().sock_recv(one, OF_ANSWER)).startswith(mine):
                pass  # the server's own answer
            await self._told(said, wanted)
            return
        mss = max(1, self.mtu - family.header - BARE_TCP)
        answer = await syn.knock(
            one,
            self.probe.target,
            self.probe.port,
            data,
            new_identity(),
            own_port=port,
            mss=mss,
            begins=mine if self.back else b"",
        )
        if self.back:
            await self._told(answer.data, wanted)
        else:
            self.fits = answer.mss + family.header + BARE_TCP if answer.mss else self.mtu

    async def _told(self, data: bytes, wanted: int) -> None:
        _, self.fits = TOLD.unpack_from(data, TEXT)
        if self.fits < wanted:  # a smaller answer than was asked for
            await asyncio.Event().wait()


async def full_size(ask: NodeAsk, probe: SendProbe, view: View) -> Fact | None:
    """A ProbeResult of full-size packets; None where they could not be tried, or smaller ones with data do not come
    back either; Blind where time was up.

    probe: of a size of its own it is sent in that size alone, and nothing before it.
    """
    try:
        if probe.large not in TEXTS or probe.protocol not in HEADERS:
            raise ValueError(f"{probe.protocol} packets cannot be sent large and {probe.large!r}")
        exchanges = _Exchanges(ask, probe, view, sender(ask, probe))
        return await _full_size(exchanges)
    except NoTime:
        return no_time(ask, probe)
    except (CannotEnter, NetlinkError, ValueError, OSError):
        return None  # whatever keeps these from being sent, keeps small ones too, and they say so


async def _full_size(exchanges: _Exchanges) -> Fact | None:
    ask, probe = exchanges.ask, exchanges.probe
    size, rtt_us = probe.size, 0
    if not size:
        for _ in range(TRIES):
            met = await exchanges.run([0] * probe.count, patience(ask) / TRIES)
            took = [one.rtt_us for one in met if one.outcome == "answered"]
            if took:
                break
            if any(one.outcome != "silence" for one in met):
                return None  # somebody objects, and small ones tell of it
        else:
            return None
        rtt_us = min(took)
        size = min(exchanges.mtu, exchanges.fits)
        if size <= smallest(probe):
            return None
    full = asyncio.ensure_future(exchanges.run([size] * probe.count, patience(ask)))
    passes = stops = -1
    if not probe.size:
        await asyncio.wait({full}, timeout=HEAD_START_S)
        if not _came_back(full):
            passes, stops = await _searched(exchanges, size, rtt_us, partial(_came_back, full))
    met = await full
    if not probe.size and not _some_back(met) and (smaller := await _fits_now(exchanges, met)) < size:
        size = smaller
        met = await exchanges.run([size] * probe.count, patience(ask))
        passes = stops = -1  # it was searched below another size
    found = result(ask.node, probe, exchanges.source, size, met)
    assert isinstance(found, ProbeResult)
    if _some_back(met):
        passes = stops = -1
    return msgspec.structs.replace(found, answers=exchanges.back, passes=passes, stops=stops)


async def _fits_now(exchanges: _Exchanges, met: Sequence[Met]) -> int:
    """How large they would be from now on: who has no room for a packet tells its sender (path MTU discovery), here or
    at the other end, and connections heed that."""
    told = [one.mtu for one in met if one.mtu > smallest(exchanges.probe)]
    if exchanges.back:
        await exchanges.run([0], longest_miss(0))
    return min([*told, exchanges.fits])


async def _searched(exchanges: _Exchanges, size: int, rtt_us: int, needless: Callable[[], bool]) -> tuple[int, int]:
    """The largest size that passes, and the smallest that does not."""
    miss = longest_miss(rtt_us)

    async def tried(sizes: Sequence[int]) -> set[int]:
        met = await exchanges.run(sizes, miss)
        return {one for one, found in zip(sizes, met, strict=True) if found.outcome == "answered"}

    try:
        least, deadline = smallest(exchanges.probe), exchanges.view.deadline
        passes, stops = await search(tried, least, size, deadline, miss, needless=needless)
        if passes > 0:  # that some pass by chance, or for a port that is known from before, would accuse somebody
            met = await exchanges.run([passes] * SURE + [stops] * SURE, miss)
            came = [one.outcome == "answered" for one in met]
            if not all(came[:SURE]) or any(came[SURE:]):
                return 0, 0
    except (OSError, ValueError, NoTime):
        return -1, -1
    return passes, stops


def _came_back(full: asyncio.Future[Sequence[Met]]) -> bool:
    return full.done() and _some_back(full.result())


def _some_back(met: Sequence[Met]) -> bool:
    return any(one.outcome == "answered" for one in met)
