"""What the probes were asked for and did not tell; without it an answer that is unknown for want of one look would not
say which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.passage import is_lost
from engine.path import place_of
from engine.plan import inside, plan
from engine.sights import Track
from engine.trains import trains
from facts import (
    Allocation,
    BgpPeer,
    Bird,
    Blind,
    CalicoNode,
    ConnectionTable,
    Endpoint,
    Fact,
    FdbEntry,
    FirewallTrace,
    ForeignVxlans,
    Link,
    LinkAddresses,
    Listener,
    MacSharers,
    Neighbor,
    NeighborTable,
    NodeAddress,
    NodeAsk,
    PeerGateway,
    PodInterface,
    PodRoute,
    ProbeResult,
    Question,
    RouteLookup,
    RoutingRules,
    RuleDrop,
    SendProbe,
    Sighting,
    StageSighting,
    TrafficControl,
    Train,
    WireguardDevice,
    WireguardPeer,
    joined,
    say,
)

Wanted = tuple[str, str, bool]  # look, what it tells, whether it did


def untold(facts: Sequence[Fact], followed: Sequence[Track], blind: Sequence[Blind]) -> list[Blind]:
    """A Blind for each look that is missing, of an answer that is unknown.

    followed: how far lost packets came. blind: what is told already; of a probe that told nothing that is enough.
    """
    silent = {one.node for one in blind if one.look == "probe"}
    lost = any(isinstance(one, ProbeResult) and is_lost(one) for one in facts)
    missing: dict[tuple[str, str], dict[str, None]] = {}
    for ask in [*plan(facts), *trains(facts, facts)]:
        of_node = [one for one in facts if getattr(one, "node", "") == ask.node]
        for look, what, seen in _wanted(ask, of_node, lost=lost):
            if not seen:
                missing.setdefault((ask.node, look), {})[what] = None
    found = [
        Blind(node=node, look=look, reason=say("its probe told nothing of {what}", what=joined(list(whats))))
        for (node, look), whats in missing.items()
    ]
    found += dict.fromkeys([*_api(facts), *_rules(facts), *_lost_unexplained(facts, followed)])
    return [one for one in found if one.node not in silent]


def _seen(facts: Sequence[Fact], kind: type[Fact], **fields: object) -> bool:
    return any(
        isinstance(one, kind) and all(getattr(one, name) == value for name, value in fields.items()) for one in facts
    )


def _wanted(ask: NodeAsk, facts: Sequence[Fact], *, lost: bool) -> Iterator[Wanted]:
    """What a probe of this version tells in any case, be it that there is nothing. facts: of this node.

    lost: packets were, for which only then something may be looked at that leaves a path well.
    """
    own = {pod.address for pod in ask.local_pods}
    for probe in ask.send:
        if probe.pod or probe.target not in own:  # without what a node itself meets at its pods nothing is unknown
            yield from _sent(probe, facts)
    if not ask.read:
        return
    for way in ask.ways:
        what = say("its route to {address}", address=way.destination)
        yield "route", what, _seen(facts, RouteLookup, destination=way.destination, source="")
        if way.source:
            yield "route", what, _seen(facts, RouteLookup, destination=way.destination, source=way.source)
        if way.expected_peer:
            what = say("the next hop {address}", address=way.expected_peer)
            yield "neighbor", what, _seen(facts, Neighbor, address=way.expected_peer)
            if _lost_behind_a_router(way.expected_peer, ask, facts):
                what = say("the gateway on the way to {address}", address=way.expected_peer)
                yield "neighbor", what, _seen(facts, PeerGateway, peer=way.expected_peer)
        if way.expected_next_hop:
            what = say("the next hop {address}", address=way.expected_next_hop)
            yield "neighbor", what, _seen(facts, Neighbor, address=way.expected_next_hop)
        if way.expected_mac:
            what = say("where frames for {mac} go", mac=way.expected_mac)
            yield "fdb", what, _seen(facts, FdbEntry, mac=way.expected_mac)
            what = say("whose MAC {mac} is", mac=way.expected_mac)
            yield "machine", what, _seen(facts, MacSharers, mac=way.expected_mac)
    if ask.tunnel_device:
        what = say("its device {device}", device=ask.tunnel_device)
        yield "link", what, _seen(facts, Link, device=ask.tunnel_device)
        yield "address", what, _seen(facts, LinkAddresses, device=ask.tunnel_device, family=ask.family)
    if ask.uplink_address:
        what = say("its address {address}", address=ask.uplink_address)
        yield "machine", what, _seen(facts, NodeAddress, address=ask.uplink_address)
        yield "link", what, any(isinstance(one, Link) and one.device != ask.tunnel_device for one in facts)
    yield "machine", say("other tunnels"), _seen(facts, ForeignVxlans)
    yield "machine", say("its routing rules"), _seen(facts, RoutingRules, family=ask.family)
    yield "machine", say("its neighbor table"), _seen(facts, NeighborTable, family=ask.family)
    if lost:
        yield "firewall", say("its table of connections"), _seen(facts, ConnectionTable)
    for pod in ask.local_pods:
        what = say("the interface of {pod}", pod=pod.name)
        yield "pod", what, _seen(facts, PodInterface, pod=pod.name, family=ask.family)
        for target in dict.fromkeys(one.target for one in ask.send if one.pod == pod.name):
            what = say("the route of {pod} to {address}", pod=pod.name, address=target)
            yield "pod", what, _seen(facts, PodRoute, pod=pod.name, destination=target)
        if pod.protocol:
            yield "pod", say("what listens in {pod}", pod=pod.name), _seen(facts, Listener, pod=pod.name, port=pod.port)
    for watch in ask.watch:
        what = say("packets from {source} to {target} at its network cards", source=watch.source, target=watch.target)
        yield (
            "tap",
            what,
            _seen(facts, Sighting, way=watch.way, source_address=watch.source, target_address=watch.target),
        )
    for key in ask.wireguard_keys:
        what = say("WireGuard's keys")
        yield "wireguard", what, _seen(facts, WireguardDevice, device=ask.tunnel_device)
        if not _seen(facts, WireguardDevice, device=ask.tunnel_device, found=False):
            yield "wireguard", what, _seen(facts, WireguardPeer, public_key=key)
    if _seen(facts, Bird, family=ask.family, running=True):
        yield "bird", say("BIRD's sessions"), _seen(facts, BgpPeer, family=ask.family)
    if ask.bird:
        yield "bird", say("BIRD"), _seen(facts, Bird, family=ask.family)


def _lost_behind_a_router(peer: str, ask: NodeAsk, facts: Sequence[Fact]) -> bool:
    """A kernel asks for the MAC of a peer that it meets itself; over IPv6 it may have no address to ask by."""
    lost = any(
        isinstance(one, ProbeResult) and (one.pod, one.target_address, one.answered) == ("", peer, 0) for one in facts
    )
    met = [
        one for one in facts if isinstance(one, Neighbor) and one.device != ask.tunnel_device and one.address == peer
    ]
    return lost and ask.family == 4 and any(not (one.found or one.asked) for one in met)


def _sent(probe: SendProbe, facts: Sequence[Fact]) -> Iterator[Wanted]:
    names = {"packets": f"{probe.protocol} {probe.port}" if probe.port else probe.protocol, "target": probe.target}
    if probe.every_ms:  # without the first one nothing is unknown
        seen = any(isinstance(one, Train) and _is_of(one, probe) and not one.once for one in facts)
        yield "packets", say("many packets ({packets}) to {target}", **names), probe.once or seen
        return
    sent = [one for one in facts if isinstance(one, ProbeResult) and _is_of(one, probe)]
    if not probe.large:
        yield (
            "packets",
            say("packets ({packets}) to {target}", **names),
            any(bool(one.size) == bool(probe.size) for one in sent),
        )
        return
    ways = {"back" if one.answers else "there" for one in sent if one.size}
    if ways:  # else the small ones that go first were not answered, as is told
        yield "packets", say("large packets ({packets}) to {target}", **names), probe.large in ways


def _is_of(one: ProbeResult | Train, probe: SendProbe) -> bool:
    met = one.pod, one.target_address, one.protocol, one.port
    return met == (probe.pod, probe.target, probe.protocol, probe.port)


def _api(facts: Sequence[Fact]) -> Iterator[Blind]:
    """Ends of the question of which the API told nothing, and their nodes and addresses."""
    ends = {one.name: one for one in facts if isinstance(one, Endpoint)}
    for question in facts:
        for name in (question.source, question.target) if isinstance(question, Question) else ():
            if name not in ends:
                yield Blind(look="endpoint", reason=say("What {name} is could not be seen.", name=name))
    nodes = {one.name for one in facts if isinstance(one, CalicoNode)}
    allocated = {one.address for one in facts if isinstance(one, Allocation)}
    for one in ends.values():
        names = {"node": one.node, "name": one.name}
        if one.node and one.node not in nodes:
            reason = say("What Calico says about node {node} of {name} could not be read.", **names)
            yield Blind(node=one.node, look="node", reason=reason)
        for address in one.addresses if one.kind == "pod" and not one.host_network else ():
            if address not in allocated:
                names = {"address": address, "name": one.name}
                reason = say("What IPAM says about {address} of {name} could not be read.", **names)
                yield Blind(look="allocation", reason=reason)


def _rules(facts: Sequence[Fact]) -> Iterator[Blind]:
    """Where packets ended at rules that are not told."""
    for trace in facts:
        if not isinstance(trace, FirewallTrace) or not trace.dropped:
            continue
        names = ("node", "source_address", "target_address", "protocol", "port", "outer")
        if not _seen(facts, RuleDrop, **{name: getattr(trace, name) for name in names}):
            reason = say("its probe told nothing of {what}", what=say("the rule that ended packets"))
            yield Blind(node=trace.node, look="firewall", reason=reason)


def _lost_unexplained(facts: Sequence[Fact], followed: Sequence[Track]) -> Iterator[Blind]:
    """Where packets came in and did not leave, and nothing that was looked at there says why."""
    explained = {one.node for one in facts if isinstance(one, RuleDrop | TrafficControl)}
    for track in followed:
        node = place_of(track.leg, track.missing)[0] if track.missing and track.last_good else ""
        if node and node not in explained and node == place_of(track.leg, track.last_good)[0]:
            reason = say("packets were lost there, and neither a rule of a firewall nor a queue was seen to end them")
            yield Blind(node=node, look="firewall", reason=reason)
    for one in facts:
        if isinstance(one, ProbeResult) and one.unended:
            if any(isinstance(sight, StageSighting) and sight.later and sight.node == one.node for sight in facts):
                reason = say("what follows in a connection was looked for, and no rule was seen to end it")
            else:
                reason = say("its probe follows only first packets: a rule that ends what follows them was not seen")
            yield Blind(node=one.node, look="firewall", reason=reason)
    for ask in inside(facts, facts):
        for pod in ask.inside:
            reason = say("packets were lost in {pod}, and no rule of its own was seen to end them", pod=pod)
            yield Blind(node=ask.node, look="firewall", reason=reason)
