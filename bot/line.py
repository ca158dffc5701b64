"""What the questions of all clusters share: without it a hundred at once would be looked into so slowly that each look
is old before it is over, and nobody would be heard meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from bot.journal import Job
from bot.reply import png
from bot.words import watches

PLACES = 4  # questions looked into at the same time; the others wait, accepted, in the order in which they came
WATCHES = 4  # flows watched at the same time, for minutes each, so in a line of their own


class Line:
    """Places for questions, first come, first served; and one easel, at which pictures are drawn one by one."""

    def __init__(self, places: int = PLACES) -> None:
        self._places = asyncio.Semaphore(places)
        self._room = places
        self._here: set[Turn] = set()
        self._easel = asyncio.Lock()

    def join(self) -> Turn:
        """Behind all who are here. Whoever joins has to leave."""
        turn = Turn(self._here, self._places, len(self._here) if len(self._here) >= self._room else 0)
        self._here.add(turn)
        return turn

    @property
    def waiting(self) -> int:
        """How many have no place yet."""
        return max(0, len(self._here) - self._room)

    async def drawn(self, svg: str) -> bytes:
        """As `png.drawn`."""
        async with self._easel:
            return await png.drawn(svg)


class Lines:
    """Where questions wait: those that watch a flow, for minutes each, keep nobody else waiting."""

    def __init__(self) -> None:
        self.questions, self._watches = Line(), Line(WATCHES)

    def join(self, job: Job) -> Turn:
        """Behind those who came before. Whoever joins has to leave."""
        return (self._watches if watches(job.words) else self.questions).join()

    @property
    def waiting(self) -> int:
        """How many have no place yet."""
        return self.questions.waiting + self._watches.waiting


class Turn:
    """One question's. before: how many others came first; 0 where a place was free."""

    def __init__(self, here: set[Turn], places: asyncio.Semaphore, before: int) -> None:
        self.before = before
        self._here = here
        self._places = places

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncGenerator[None]:
        """As long as it has one, and then it leaves."""
        try:
            async with self._places:
                yield
        finally:
            self.leave()

    def leave(self) -> None:
        """May be called twice."""
        self._here.discard(self)
