"""Whether Slack can reach the bot, and for how long it could not; without it a bot that is cut off would look alive."""

from __future__ import annotations

import time
from collections.abc import Callable

from bot.journal import Journal


class Health:
    """Of one bot. It is told by who watches over the way to Slack, and asked by whoever supervises the bot."""

    def __init__(self, journal: Journal, *, dead_after_s: float) -> None:
        """dead_after_s: Slack's socket does not come back by itself after so long."""
        self.connected = False
        self.ponged_at: Callable[[], float | None] = lambda: None  # when Slack's socket answered a ping last
        self._journal = journal
        self._dead_after_s = dead_after_s
        self._well = time.monotonic()

    def reached(self) -> None:
        """Slack can reach the bot, now."""
        self.connected, self._well = True, time.monotonic()

    def lost(self) -> None:
        self.connected = False

    def no_start_helps(self) -> None:
        """Slack itself is not there."""
        self._well = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Since Slack was known to reach the bot last, or since the start."""
        return time.monotonic() - self._well

    def heard_s(self) -> float:
        """Since Slack's socket answered a ping; 0 where there is none, or it was never asked yet."""
        at = self.ponged_at()
        return max(0.0, time.time() - at) if at else 0.0

    def dead(self) -> str:
        """Why only a new start can help, "" where there is hope."""
        if self.connected or self.silent_s <= self._dead_after_s:
            return ""
        return f"Slack's socket has been gone for {self.silent_s:.0f} s"

    def unready(self) -> str:
        """Why a question would not be answered now, "" where it would. Blocks for a disk. What is wrong with a cluster
        is an answer."""
        if not self.connected:
            return "Slack does not reach this bot"
        if refused := self._journal.refuses():
            return f"the journal of questions cannot be written: {refused}"
        return ""
