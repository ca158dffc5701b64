"""Bots and fixers as processes that are killed with -9, by a seeded plan, and started again."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.trial.nursery import Nursery

# A killed holder of the Lease is followed after 20 s: more of those would be a trial of waiting.
ROLES = {"bot": 44, "node fixer": 44, "cluster fixer": 12}
AGAIN = 0.15  # of those that were killed are killed once more while they start
STARTING_S = 2.0
LATER_S = 0.03  # a fix takes some ten milliseconds from Approved to its end


class Process:
    """One program, started again whenever it ends. `kills`: when it was killed (time.monotonic())."""

    def __init__(
        self,
        name: str,
        role: str,
        words: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        nursery: Nursery,
        namespace: str = "",
    ) -> None:
        self.name, self.role = name, role
        self._start = functools.partial(nursery.start, words, environment, log, namespace)
        self._pidfd = -1
        self._stopping = False
        self.kills: list[float] = []
        self.died = 0  # ended by itself

    async def run(self) -> None:
        """Until `stop`."""
        while not self._stopping:
            killed = len(self.kills)
            self._pidfd = self._start()
            await _readable(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
            if len(self.kills) == killed and not self._stopping:
                self.died += 1
                await asyncio.sleep(1)

    def kill(self) -> bool:
        """False when it is dead already."""
        if self._pidfd < 0 or not self._signal(signal.SIGKILL):
            return False
        self.kills.append(time.monotonic())
        return True

    def stop(self) -> None:
        self._stopping = True
        if self._pidfd >= 0:
            self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> bool:
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return False
        return True


async def _readable(descriptor: int) -> None:
    """Until the process of this pidfd has ended."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)


class Killer:
    """Kills by a plan that the seed gives: after so many moments one of that role, at its next own moment.

    A moment is a write that has come to the API server, one that was made there, a write in a kernel, a call of Slack.
    """

    def __init__(self, seed: int, kills: int, every: float) -> None:
        """every: moments between two kills, on average."""
        self._random = random.Random(f"{seed}/kills")
        self._left, self._every = kills, every
        self.processes: list[Process] = []
        self.counts: Counter[str] = Counter()
        self._wait, self._role, self._delay = 0, "", 0.0
        self._plan()

    @property
    def over(self) -> bool:
        return self._left <= 0

    def end(self) -> None:
        self._left = 0

    def moment(self, name: str) -> None:
        """name: of the process whose it is; "bot", "node fixer" where only the role is known."""
        if self._left <= 0:
            return
        self._wait -= 1
        if self._wait > 0:
            return
        victims = [one for one in self.processes if one.role == self._role and name in (one.name, one.role)]
        if not victims:
            return
        victim, delay = self._random.choice(victims), self._delay
        self._plan()
        self._strike(victim, delay)
        if self._random.random() < AGAIN:
            self._strike(victim, delay + self._random.uniform(0.1, STARTING_S))

    def _strike(self, victim: Process, delay: float) -> None:
        if delay:
            asyncio.get_running_loop().call_later(delay, self._kill, victim)
        else:
            self._kill(victim)

    def _kill(self, victim: Process) -> None:
        if self._left > 0 and victim.kill():
            self._left -= 1
            self.counts[victim.role] += 1

    def _plan(self) -> None:
        self._wait = self._random.randint(1, max(1, round(2 * self._every)))
        self._role = self._random.choices(list(ROLES), list(ROLES.values()))[0]
        self._delay = 0.0 if self._random.random() < 0.5 else self._random.uniform(0, LATER_S)
