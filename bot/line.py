"""What the questions of all clusters share: without it a hundred at once would be looked into so slowly that each look
is old before it is over, and nobody would be heard meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from bot.reply import png

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
