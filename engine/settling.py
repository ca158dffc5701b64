"""Tells an answer that came too soon: packets say nothing of the path while a kernel on it is just asking for a MAC.

A kernel asks for a neighbor three times, a second apart, and drops what waits when it gives up. What was mended after
it asked it learns a second later, a pod's as well as a node's, whose question the peer may have heard and answered to
a wrong MAC. And where a wrong route made its node send it a redirect (IPv6), it asks
for the target itself until it gives that up, all of three seconds, and takes its gateway again.

And a probe that had too little of its node's processors says nothing of the path either, but that it was late.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import msgspec

from facts import Blind, Fact, Neighbor, NodeAsk, PeerGateway, PodInterface, PodRoute, ProbeResult, SendProbe, Train

EVERY_S = 1.0  # net.ipv4.neigh.default.retrans_time_ms and that of IPv6, as every kernel has them
ALL_S = 3 * EVERY_S  # mcast_solicit
LONGER_MS = 6000  # for a probe that was late; whoever asks it may have less


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


def late(seen: Sequence[Fact]) -> list[str]:
    """Nodes whose probes were not done in time with what a healthy path rests on."""
    return list(dict.fromkeys(one.node for one in seen if _is_late(one)))


def longer(asks: Sequence[NodeAsk], seen: Sequence[Fact]) -> list[NodeAsk]:
    """What to ask once more, with more time, after some were `late`. Where only packets are missing these alone, and of
    the other nodes what watches and answers them: a busy node has less to do then."""
    if any(_is_late(one) and one.look != "packets" for one in seen):
        return [msgspec.structs.replace(ask, deadline_ms=LONGER_MS) for ask in asks]
    found = []
    for ask in asks:
        missing = tuple(one for one in ask.send if ask.node in late(seen) and not _told(one, ask, seen))
        found.append(
            msgspec.structs.replace(
                ask, deadline_ms=LONGER_MS, send=missing, read=False, felix=False, felix_again=False
            )
        )
    return found


def completed(asked: Sequence[NodeAsk], seen: Sequence[Fact], more: Sequence[Fact]) -> list[Fact]:
    """What is known with the answers to `longer`. seen: what was before."""
    if any(ask.read for ask in asked):
        return list(more if len(late(more)) <= len(late(seen)) else seen)
    failed = {one.node for one in more if isinstance(one, Blind) and one.look == "probe"}
    kept = [one for one in seen if not (_is_late(one) and one.node not in failed)]
    told = [one for one in more if isinstance(one, ProbeResult | Train) or _of_packets(one)]
    return list(dict.fromkeys([*kept, *told]))


def _of_packets(one: Fact) -> bool:
    return isinstance(one, Blind) and one.look == "packets"


def _is_late(one: Fact) -> TypeGuard[Blind]:
    return isinstance(one, Blind) and one.late and not one.minor


def _told(probe: SendProbe, ask: NodeAsk, seen: Sequence[Fact]) -> bool:
    """Is it known what became of these packets?"""
    of_probe = probe.pod, probe.target, probe.protocol, probe.port
    for one in seen:
        if not isinstance(one, ProbeResult | Train) or one.node != ask.node:
            continue
        if (one.pod, one.target_address, one.protocol, one.port) != of_probe:
            continue
        if isinstance(one, Train) or probe.every_ms:
            same = isinstance(one, Train) and probe.every_ms > 0
        elif probe.large:
            same = one.size > 0 and one.answers == (probe.large == "back")
        else:
            same = bool(one.size) == bool(probe.size) and not one.answers
        if same:
            return True
    return False
