"""What can be made to fail on purpose; without it the bot would meet a failing Slack first in production."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from lab.slack.workspace import Clock

ApiFailure = Literal["429", "500", "reset", "lost", "timeout", "error"]
FAILURES: tuple[ApiFailure, ...] = tuple(one for one in get_args(ApiFailure) if one != "error")
ANY_METHOD = "*"
RATE_PER_SECOND = 1.0
RATE_BURST = 5.0


@dataclass(frozen=True, slots=True)
class ApiFault:
    """How one call fails. `lost` and `timeout` apply the call; then the connection breaks, or never an answer comes.
    `retry_after` is seconds, for 429 only; `error` Slack's word, for "error" only."""

    failure: ApiFailure
    retry_after: int = 1
    error: str = ""


class RateBucket:
    """One message a second and channel, short bursts tolerated, as chat.postMessage has it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._filled: dict[str, tuple[float, float]] = {}  # channel: tokens, and when they were counted

    def take(self, channel: str) -> bool:
        now = self._clock.now()
        tokens, counted = self._filled.get(channel, (RATE_BURST, now))
        tokens = min(RATE_BURST, tokens + (now - counted) * RATE_PER_SECOND)
        allowed = tokens >= 1.0
        self._filled[channel] = (tokens - 1.0 if allowed else tokens, now)
        return allowed


@dataclass(slots=True)
class Faults:
    """Switches; all off at the start. `latency` is seconds before every API answer."""

    clock: Clock
    latency: float = 0.0
    drop_acks: int = 0  # so many acknowledgements to come are lost on the way
    deliver_twice: int = 0  # so many events to come arrive a second time, as a retry
    refuse_links: int = 0  # so many sockets to come are not opened, and their tickets used up
    rate_limit: bool = False
    audible: asyncio.Event = field(default_factory=asyncio.Event)
    _planned: defaultdict[str, deque[ApiFault]] = field(default_factory=lambda: defaultdict(deque))
    _bucket: RateBucket | None = None

    def __post_init__(self) -> None:
        self.audible.set()

    def hush(self) -> None:
        """From now on all connections stay open and nothing comes over any, as where packets are dropped; what is asked
        is answered to who waits still when `audible` is set again."""
        self.audible.clear()

    def refuse(self, method: str, error: str, times: int = 1) -> None:
        """The next `times` calls of `method` are refused with Slack's word for why."""
        self._planned[method].extend([ApiFault("error", error=error)] * times)

    def fail(self, method: str, failure: str, times: int = 1, retry_after: int = 1) -> None:
        """The next `times` calls of `method` ("*": of any) fail. Raises ValueError for a failure unknown here."""
        known = next((one for one in FAILURES if one == failure), None)
        if known is None:
            raise ValueError(f"no failure {failure!r}; there are {', '.join(FAILURES)}")
        self._planned[method].extend([ApiFault(known, retry_after)] * times)

    def take(self, method: str, channel: str) -> ApiFault | None:
        """How this call fails, spending what was planned for it."""
        for name in (method, ANY_METHOD):
            if self._planned[name]:
                return self._planned[name].popleft()
        if self.rate_limit and method == "chat.postMessage" and not self._rate().take(channel):
            return ApiFault("429")
        return None

    def take_drop_ack(self) -> bool:
        dropped = self.drop_acks > 0
        self.drop_acks -= dropped
        return dropped

    def take_refuse_link(self) -> bool:
        refused = self.refuse_links > 0
        self.refuse_links -= refused
        return refused

    def take_deliver_twice(self) -> bool:
        twice = self.deliver_twice > 0
        self.deliver_twice -= twice
        return twice

    def clear(self) -> None:
        self.latency, self.drop_acks, self.deliver_twice, self.rate_limit = 0.0, 0, 0, False
        self.refuse_links = 0
        self.audible.set()
        self._planned.clear()

    def shape(self) -> dict[str, Any]:
        """What is switched on now, for the page: how many are still to come, and seconds of latency."""
        planned = Counter(fault.failure for faults in self._planned.values() for fault in faults)
        return {
            **{failure: planned[failure] for failure in FAILURES},
            "drop_ack": self.drop_acks,
            "twice": self.deliver_twice,
            "latency": self.latency,
            "rate_limit": self.rate_limit,
        }

    def _rate(self) -> RateBucket:
        if self._bucket is None:
            self._bucket = RateBucket(self.clock)
        return self._bucket
