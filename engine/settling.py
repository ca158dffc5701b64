"""Tells an answer that came too soon: packets say nothing of the path while a kernel on it is just asking for a MAC.

A kernel asks for a neighbor three times, a second apart, and drops what waits when it gives up. What was mended after
it asked it learns a second later, a pod's as well as a node's, whose question the peer may have heard and answered to
a wrong MAC. And where a wrong route made its node send it a redirect (IPv6), it asks
for the target itself until it gives that up, all of three seconds, and takes its gateway again.
"""

from __future__ import annotations

from collections.abc import Sequence

from facts import Fact, Neighbor, PeerGateway, PodInterface, PodRoute, ProbeResult

EVERY_S = 1.0  # net.ipv4.neigh.default.retrans_time_ms and that of IPv6, as every kernel has them
ALL_S = 3 * EVERY_S  # mcast_solicit


def asking(seen: Sequence[Fact]) -> dict[str, float]:
    """Pods and nodes that were asking for a MAC while fresh packets were lost -> seconds after which they know, or ask
    anew."""
    if all(one.answered for one in seen if isinstance(one, ProbeResult) and one.sent):
        return {}
    behind = {(one.pod, one.destination) for one in seen if isinstance(one, PodRoute) and one.next_hop}
    found: dict[str, float] = {}
    for one in seen:
        if isinstance(one, PodInterface):
            redirected = any((one.pod, address) in behind for address in one.pod_asking)
            if redirected or one.pod_default_next_hop in one.pod_asking:
                found[one.pod] = max(found.get(one.pod, 0.0), ALL_S if redirected else EVERY_S)
        elif isinstance(one, PeerGateway) or (isinstance(one, Neighbor) and one.asked):  # on a tunnel nobody answers
            found |= {one.node: EVERY_S} if one.state == "INCOMPLETE" else {}
    return found
