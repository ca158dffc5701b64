"""From which size on packets are lost; without it nobody knew which MTU would be right, or that it is no MTU."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

from node_probe.packets import RESERVE_S

SIZES = 12  # tried at a time: as many again divide what lies between those that pass and those that do not
MISS_S = 0.15  # at least, and this many round trips of a small packet: then a packet of the search has not passed
MISS_RTTS = 10
LONGEST_MISS_S = 0.3


def longest_miss(rtt_us: int) -> float:
    """How long a packet of the search is waited for, s. rtt_us: of a small packet on the same way."""
    return min(LONGEST_MISS_S, max(MISS_S, MISS_RTTS * rtt_us / 1e6))


async def search(
    tried: Callable[[Sequence[int]], Awaitable[set[int]]],
    passes: int,
    stops: int,
    deadline: float,
    miss: float,
    *,
    needless: Callable[[], bool],
) -> tuple[int, int]:
    """The largest size that passes and the smallest that does not, each seen twice; (0, 0) where it is not sizes that
    decide, (-1, -1) where time ran out or it is needless. Some 40 packets for an MTU of 1500.

    tried: sends one packet of each size, waits for `miss` seconds and tells the sizes that were answered. passes,
    stops: between these it is looked for. deadline: time.monotonic. needless: have those of size `stops` come back
    meanwhile? On a busy node, or a long way, they only come later than others are tried.
    """
    while stops - passes > 1:
        if needless() or deadline - time.monotonic() < miss + 2 * RESERVE_S:
            return -1, -1
        wide = stops - passes
        between = {passes + wide * place // (SIZES + 1) for place in range(1, SIZES + 1)} - {passes}
        answered = await tried(sorted(between))
        passes = max(passes, *answered) if answered else passes
        stops = min([stops, *(size for size in between - answered if size > passes)])
    answered = await tried((passes, stops, stops))
    return (passes, stops) if answered == {passes} else (0, 0)
