"""Where pings are not answered, or a rule drops large ones, whether large packets pass is to be seen by TCP; without it
a policy about pings would hide that an MTU is wrong, or look like a wrong one."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from engine import passage
from engine.plan import expected_legs
from facts import CalicoNode, Fact, Leg, LocalPod, NodeAsk, PodInterface, ProbeResult, RuleDrop, SendProbe

PATIENCE_MS = 900  # a lost packet's size is searched for meanwhile; a kernel sends no such packet again


def large(known: Sequence[Fact], seen: Sequence[Fact]) -> list[NodeAsk]:
    """What to ask once more of flows whose TCP connections pass and whose pings, or large ones, do not. One each."""
    probes = [fact for fact in seen if isinstance(fact, ProbeResult)]
    dropped = {
        frozenset((fact.source_address, fact.target_address))
        for fact in seen
        if isinstance(fact, RuleDrop) and fact.protocol == "icmp"
    }
    nodes = {(fact.name, fact.family): fact for fact in known if isinstance(fact, CalicoNode)}
    found = []
    for leg in expected_legs(known):
        size = _size(leg, seen)
        node = nodes.get((leg.source_node, leg.family))
        if size and node and _only_tcp_passes(leg, probes, dropped):
            small = SendProbe(pod=leg.source, target=leg.target_address, protocol="tcp", port=leg.port)
            pod = LocalPod(name=leg.source, address=leg.source_address, interface=leg.source_interface)
            found.append(
                NodeAsk(
                    node=node.name,
                    family=node.family,
                    felix=False,
                    read=False,
                    tunnel_device="",
                    uplink_address=node.address,
                    local_pods=(pod,),
                    send=(
                        small,
                        SendProbe(pod=leg.source, target=leg.target_address, protocol="tcp", port=leg.port, size=size),
                    ),
                    patience_ms=PATIENCE_MS,
                )
            )
    return found


def _only_tcp_passes(leg: Leg, probes: Sequence[ProbeResult], dropped: Collection[frozenset[str]]) -> bool:
    """dropped: the ends whose pings a rule ended."""
    if leg.direction != "forward" or not leg.port_asked or leg.protocol != "tcp":
        return False
    small = [one for one in passage.sent(leg, probes) if not one.size]
    pings = [one for one in small if one.protocol == "icmp"]
    tried = [one for one in small if (one.protocol, one.port) == (leg.protocol, leg.port)]
    by_rule = frozenset((leg.source_address, leg.target_address)) in dropped and passage.loses_large_only(leg, probes)
    none = bool(by_rule) or not any(one.answered for one in pings)
    return bool(pings and tried) and none and all(map(passage.all_answered, tried))


def _size(leg: Leg, seen: Sequence[Fact]) -> int:
    """What both pods take; 0 where that is not known. Larger ones a connection would not use either."""
    sizes = {
        fact.pod: fact.pod_mtu
        for fact in seen
        if isinstance(fact, PodInterface) and fact.family == leg.family and fact.entered and fact.pod_mtu > 0
    }
    return min(sizes.get(leg.source, 0), sizes.get(leg.target, 0))
