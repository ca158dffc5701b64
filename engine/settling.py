"""Tells an answer that came too soon: packets of a pod that is just looking for its gateway say nothing of the path.

A kernel asks for a neighbor three times, a second apart. What was mended after the third, it learns from the next
packet but one: until that second is over it asks nobody, and what waits for the answer is lost with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from facts import Fact, PodInterface, ProbeResult

ASKS_EVERY_S = 1.0  # net.ipv4.neigh.default.retrans_time_ms and that of IPv6, as every kernel has them
ASKING = "INCOMPLETE"


def looking_for_gateway(seen: Sequence[Fact]) -> list[str]:
    """Pods that were asking for their gateway's MAC while fresh packets were lost; one look later they know."""
    if all(one.answered for one in seen if isinstance(one, ProbeResult) and one.sent):
        return []
    pods = (one for one in seen if isinstance(one, PodInterface))
    return list(dict.fromkeys(one.pod for one in pods if one.pod_gateway_state == ASKING))
