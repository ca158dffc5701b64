"""What the questions of all clusters share: without it a hundred at once would be looked into so slowly that each look
is old before it is over, and nobody would be heard meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from bot.reply import png

PLACES = 8  # questions looked into at the same time; the others wait, accepted, in the order in which they came


class Line:
    """Places for questions, first come, first served; and one easel, at which pictures are drawn one by one."""

    def __init__(self, places: int = PLACES) -> None:
        self._places = asyncio.Semaphore(places)
        self._room = places
        self._here = 0  # with a place or without
        self._easel = asyncio.Lock()

    @property
    def before(self) -> int:
        """How many a question that comes now has before it; 0 where a place is free."""
        return self._here if self._here >= self._room else 0

    @property
    def waiting(self) -> int:
        """How many have no place yet."""
        return max(0, self._here - self._room)

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncGenerator[None]:
        self._here += 1
        try:
            async with self._places:
                yield
        finally:
            self._here -= 1

    async def drawn(self, svg: str) -> bytes:
        """As `png.drawn`."""
        async with self._easel:
            return await png.drawn(svg)
