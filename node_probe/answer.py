"""One ask answered by its deadline, whatever breaks or hangs; without it one bad look would cost all the others."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from facts import Blind, Fact, NodeAsk
from facts.capture import CaptureAsk, CaptureLine
from node_probe import packets, series
from node_probe.answering import Answers
from node_probe.capture import Capture
from node_probe.collectors import Collector, discover, felix
from node_probe.drop_reasons import Tracing
from node_probe.firewall.legacy import Log
from node_probe.firewall.trace import Following
from node_probe.firewall.within import Within
from node_probe.netlink import Netlink
from node_probe.stages import Stages
from node_probe.tap import Tap
from node_probe.traffic_control import Queues
from node_probe.view import View

log = logging.getLogger(__name__)

LONGEST_S = 30.0
HEAD_START_S = 0.05  # without a look that is done; then the next one starts beside it
MINOR = ("services", "bird", "wireguard", "firewall")  # a path that carries packets can be called healthy without these
# How a node as a whole is.
STATUS = ("address", "bird", "felix", "link", "machine", "routes", "services", "system", "tunnels")
PATIENT = ("felix", "services")  # the collectors that look again, seconds later, where the first look was bad
RULES_S = 1.0  # to read all rules of a node: twenty thousand take half of it
THREADS = 16  # a look takes milliseconds; these are for those that hang


class Prober:
    """Answers asks about the node whose network namespace it was made in. For one event loop; to be closed."""

    def __init__(self, node: str, collectors: Mapping[str, Collector] | None = None, *, trace: str = "all") -> None:
        """collectors: instead of all there are. trace: how packets are followed, see firewall.trace.Following.

        Raises NetlinkError when the kernel offers no routing socket.
        """
        self.node = node
        self._trace = trace
        self._log = Log()
        self._collectors = discover() if collectors is None else collectors
        self._netlink = Netlink()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="look")
        self._late: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Waits for late collectors; the kernel lets none wait longer than its own timeout."""
        while self._late:
            await asyncio.wait(self._late)
        self._threads.shutdown()
        self._netlink.close()

    async def answer(self, ask: NodeAsk, deadline: float) -> list[Fact]:
        """All facts there are by `deadline` (time.monotonic, s); Blind for each look that broke or is not done by then.

        First everything is read, then packets are sent: a packet makes the kernel write neighbor entries. Beside both
        Felix is asked; only to look at it twice, where the ask wants that, may the answer be late.
        """
        view = View(self._netlink, deadline)
        looking: list[asyncio.Future[None]] = []
        wanted = self._collectors if ask.read else {}
        if ask.status:
            wanted = {name: collector for name, collector in wanted.items() if name in STATUS}
        reading = {name: collector for name, collector in wanted.items() if name not in PATIENT}
        patient = {name: collector for name, collector in wanted.items() if name in PATIENT}
        packets_s = packets.patience(ask) + 2 * packets.RESERVE_S
        until = deadline - packets.RESERVE_S / 2
        if ask.felix_again:
            until = max(until, time.monotonic() + felix.PATIENCE_S)
        health = asyncio.create_task(self._look(ask, view, patient, until, looking))
        tap = Tap(ask)
        following = Following(ask, self._log, self._trace, partial(view.on_the_way, ask))
        within = Within(ask, view, self._trace)
        stages = Stages(ask, view)
        answers = Answers(ask, view)
        queues = Queues(ask, view)
        tracing = Tracing(wanted=bool(ask.trace) and self._trace != "off")
        try:
            # First: a tap that is open tells the peers to send.
            await asyncio.gather(
                following.arm((time.monotonic() + deadline) / 2),
                within.arm((time.monotonic() + deadline) / 2),
                stages.open(),
                answers.open(),
                queues.open(),
                tracing.open(),
            )
            tap.open()
            # A look that hangs must not eat the time of the packets.
            pause = min(packets_s, (deadline - time.monotonic()) / 2) if ask.send else packets.RESERVE_S / 2
            facts = await self._look(ask, view, reading, deadline - pause, looking)
            if ask.send:
                await tap.begin(deadline - packets_s)
                facts += await self._look(ask, view, {"packets": series.collect}, deadline, looking)
                await tap.end()
            await tap.look(deadline - (RULES_S if ask.trace else 0))
            dropped = await tracing.reasons(self.node)
            met = stages.sightings(tap)
            followed = met + await following.facts(deadline, all_sent=tap.all_sent())
            followed += await within.facts(deadline)
            followed += await queues.facts(followed, following.at_devices())
            told = await health
            return facts + tap.sightings() + followed + dropped + told
        finally:
            tap.close()
            stages.close()
            answers.close()
            following.close()
            within.close()
            health.cancel()
            self._close_after(view, looking)
            self._finish(tracing.close())

    async def capture(self, ask: CaptureAsk) -> AsyncGenerator[list[CaptureLine]]:
        """A few times a second what was captured; what it opened is closed with it. Raises CannotCapture."""
        with View(self._netlink, time.monotonic() + ask.seconds) as view:
            capture = Capture(ask, view)
            try:
                await capture.open()
                async for lines in capture.lines():
                    yield lines
            finally:
                capture.close()

    async def _look(
        self,
        ask: NodeAsk,
        view: View,
        collectors: Mapping[str, Collector],
        deadline: float,
        looking: list[asyncio.Future[None]],
    ) -> list[Fact]:
        looks = {name: _Look(collector) for name, collector in collectors.items()}
        waiting = deque[_Look]()
        started: list[asyncio.Future[None]] = []

        def start(work: asyncio.Future[None]) -> None:
            started.append(work)
            looking.append(work)

        for one in looks.values():
            if inspect.isasyncgenfunction(one.collector):
                start(asyncio.create_task(one.follow(ask, view)))
            else:
                waiting.append(one)
        try:
            # One after the other while they are quick: threads of one interpreter only wait for each other.
            while waiting and time.monotonic() < deadline:
                start(asyncio.get_running_loop().run_in_executor(self._threads, _read, waiting, ask, view))
                left = -1
                while left != len(waiting) and not started[-1].done():
                    left = len(waiting)
                    await asyncio.wait(started[-1:], timeout=min(HEAD_START_S, max(0.0, deadline - time.monotonic())))
            if started:
                await asyncio.wait(started, timeout=max(0.0, deadline - time.monotonic()))
        finally:
            waiting.clear()
        facts: list[Fact] = []
        for name, one in looks.items():
            done = one.done
            facts += one.seen.copy()
            if not done:
                reason = f"not done after {ask.deadline_ms} ms"
                facts.append(Blind(node=self.node, look=name, reason=reason, minor=name in MINOR, late=True))
            elif one.error:
                facts.append(Blind(node=self.node, look=name, reason=_sentence(one.error), minor=name in MINOR))
        return facts

    def _close_after(self, view: View, looking: list[asyncio.Future[None]]) -> None:
        """Descriptors are closed when nobody can use them any more: the kernel gives their numbers to others."""

        async def close() -> None:
            for task in looking:
                with contextlib.suppress(Exception):
                    await task
            view.close()

        if all(task.done() for task in looking):
            view.close()
            return
        self._finish(close())

    def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        """No answer waits for it."""
        late = asyncio.create_task(work)
        self._late.add(late)
        late.add_done_callback(self._late.discard)


@dataclass
class _Look:
    """One collector, and how far it has come."""

    collector: Collector
    seen: list[Fact] = field(default_factory=list)  # each as soon as it is known: what came before a failure counts
    error: Exception | None = None
    done: bool = False

    async def follow(self, ask: NodeAsk, view: View) -> None:
        with self._ending():
            async for fact in cast(AsyncIterator[Fact], self.collector(ask, view)):
                self.seen.append(fact)

    def read(self, ask: NodeAsk, view: View) -> None:
        with self._ending():
            for fact in cast(Iterator[Fact], self.collector(ask, view)):
                self.seen.append(fact)

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.error = error
        self.done = True


def _read(waiting: deque[_Look], ask: NodeAsk, view: View) -> None:
    """Takes one after the other; several threads may."""
    with contextlib.suppress(IndexError):
        while True:
            waiting.popleft().read(ask, view)


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"the kernel refused: {error.strerror}"
    if isinstance(error, ValueError):
        return str(error)
    log.error("a collector broke", exc_info=error)
    return f"a mistake in the probe ({type(error).__name__}: {error}); its log has the details"
