"""Follows packets through the rules inside of pods; without it a rule that a pod brought along would look like a server
that does not answer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import msgspec

from facts import Fact, LocalPod, NodeAsk, RuleDrop
from node_probe.firewall.legacy import Log
from node_probe.firewall.trace import Following
from node_probe.namespaces import CannotEnter
from node_probe.view import View

READING_S = 0.5  # of the rules, after the packets have gone


class _Pod:
    """Follows in one pod, in a thread of its own that is in its network, with an event loop of its own."""

    def __init__(self, pod: LocalPod, ask: NodeAsk, view: View, mode: str) -> None:
        traces = [one for one in ask.trace if pod.address in (one.source, one.target)]
        bare = [msgspec.structs.replace(one, encapsulation="", translated="", unaltered=False) for one in traces]
        self._pod = pod
        self._ask = msgspec.structs.replace(ask, trace=tuple(bare))
        self._view = view
        self._mode = mode
        self.armed, self.sent, self.done = threading.Event(), threading.Event(), threading.Event()
        self.found: list[Fact] = []

    def run(self) -> None:
        """Never raises: a pod that cannot be entered is told of by whatever else goes there."""
        try:
            entered = self._view.enter(self._pod)
            entered.run(lambda: asyncio.run(self._follow(entered.device.name)))
        except (CannotEnter, OSError):
            pass
        finally:
            self.armed.set()
            self.done.set()

    async def _follow(self, device: str) -> None:
        following = Following(self._ask, Log(), self._mode, lambda: [device])
        try:
            await following.arm(self._view.deadline - READING_S)
            self.armed.set()
            await asyncio.to_thread(self.sent.wait, max(0.0, self._view.deadline - time.monotonic()))
            self.found = await following.facts(self._view.deadline, all_sent=True)
        finally:
            following.close()


class Within:
    """To be armed before the first packet is sent, and to be closed. Does nothing where an ask names no pod for it."""

    def __init__(self, ask: NodeAsk, view: View, mode: str) -> None:
        """mode: of Following. What iptables-legacy does in a pod is only counted."""
        mode = "nft" if mode == "all" else mode
        self._pods = {pod.name: _Pod(pod, ask, view, mode) for pod in ask.local_pods if pod.name in ask.inside}

    async def arm(self, deadline: float) -> None:
        """deadline: time.monotonic, s."""
        for one in self._pods.values():
            threading.Thread(target=one.run, name="within-pod", daemon=True).start()
        await self._all([one.armed for one in self._pods.values()], deadline)

    async def facts(self, deadline: float) -> list[Fact]:
        """The rules inside of pods that ended packets."""
        self.close()
        await self._all([one.done for one in self._pods.values()], deadline)
        return [
            msgspec.structs.replace(fact, pod=name)
            for name, one in self._pods.items()
            for fact in one.found
            if isinstance(fact, RuleDrop)
        ]

    def close(self) -> None:
        for one in self._pods.values():
            one.sent.set()

    async def _all(self, events: Sequence[threading.Event], deadline: float) -> None:
        for event in events:
            await asyncio.to_thread(event.wait, max(0.0, deadline - time.monotonic()))
