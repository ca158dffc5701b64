"""How far Felix is, by its own metrics: it can be live and ready and stand still, which only its counter shows.

Felix applies something every 90 s even where nothing changes. A probe that is asked again later remembers the number it
saw before; it does not watch on its own account.
"""

from __future__ import annotations

import time

import aiohttp

TIMEOUT_S = 0.7
LARGEST = 4 << 20  # bytes of metrics
COUNTER = "felix_int_dataplane_apply_time_seconds_count"
STARTED = "process_start_time_seconds"

Seen = tuple[float, int, float]  # when the process started, its counter, when (monotonic) that number was first met
_before: dict[str, Seen] = {}  # by node: one probe, one node


async def progress(node: str, port: int) -> tuple[int, int]:
    """Felix's counter, and for how many seconds it has been known to stand; (-1, 0) without metrics, the default."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session,
            session.get(f"http://127.0.0.1:{port}/metrics") as answer,
        ):
            numbers = read((await answer.content.read(LARGEST)).decode(errors="replace"))
    except (aiohttp.ClientError, TimeoutError):
        return -1, 0
    return compared(node, numbers, _before, time.monotonic())


def compared(node: str, numbers: dict[str, float], before: dict[str, Seen], now: float) -> tuple[int, int]:
    """The counter and its age beside what was seen before, which it replaces. now: monotonic, s."""
    if COUNTER not in numbers:  # somebody else's metrics, or a Felix that has not got that far
        return -1, 0
    started, applies = numbers.get(STARTED, 0.0), int(numbers[COUNTER])
    same = node in before and before[node][:2] == (started, applies)
    since = before[node][2] if same else now
    before[node] = (started, applies, since)
    return applies, int(now - since)


def read(text: str) -> dict[str, float]:
    """The two numbers out of Prometheus' text format."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name in (COUNTER, STARTED):
            found[name] = float(value.split()[0])
    return found
