"""What to ask of which node, decided once from what the API said; without it rules would have to ask back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from engine.deductions.flow import FAMILIES, address_of, flows
from engine.deductions.leg import legs
from engine.deductions.service_flow import service_flows
from engine.ends import sides
from engine.passage import is_lost, loses, loses_large_only, loses_later_only, only_unended, sent
from engine.services import sender, sends
from facts import (
    Allocation,
    Answering,
    Backend,
    CalicoNode,
    CalicoSettings,
    Endpoint,
    Fact,
    Flow,
    Leg,
    LocalPod,
    NodeAsk,
    OwnPort,
    ProbeResult,
    Question,
    RuleDrop,
    SendProbe,
    ServicePort,
    StageSighting,
    Trace,
    Watch,
    Way,
)

F = TypeVar("F", bound=Fact)
T = TypeVar("T")
WIREGUARD_PORTS = {4: 51820, 6: 51821}  # Felix's defaults
TUNNELS = ("vxlan", "ipip", "wireguard")
MOST_FOLLOWED = 4  # flows
OF_LEGS = frozenset({Allocation, Backend, CalicoNode, CalicoSettings, Endpoint, Question})  # what legs follow from
TRAIN, TRAIN_EVERY_MS = 32, 1  # packets, of which some are lost for almost sure where one in ten is
MOST_TRAINS = 2  # of an ask
PATIENCE_MS = 1000
# For the answer to a packet that is followed, what ended it being told at once: so many round trips of what came back
# between the same nodes, at least the one, and the other where nothing did.
ROUND_TRIPS, FOLLOWED_MS, FOLLOWED_UNKNOWN_MS = 10, 150, 200


def plan(facts: Sequence[Fact]) -> list[NodeAsk]:
    """What to ask of each node of the flows, source nodes first; empty when there are no two legs to look at.

    One NodeAsk for each node, family and tunnel device.
    """
    expected = expected_legs(facts)
    nodes = {(node.name, node.family): node for node in _all(facts, CalicoNode)}
    groups = dict.fromkeys(
        (name, leg.family, leg.tunnel_device)
        for pick in (_sender, _receiver)
        for leg in expected
        if (name := pick(leg))
    )
    asks: list[NodeAsk] = []
    for name, family, device in groups:
        of_group = [leg for leg in expected if (leg.family, leg.tunnel_device) == (family, device)]
        node = nodes[name, family]
        felix = node.settings_read and all(ask.node != name for ask in asks)  # else its port is not known
        ask = _ask(node, device, of_group, felix=felix)
        twin = nodes.get((name, 10 - family))
        asks.append(msgspec.structs.replace(ask, twin_address=twin.address if twin else ""))
    for family in FAMILIES:
        _ask_services(asks, facts, nodes, family)
    return asks


def second(known: Sequence[Fact], seen: Sequence[Fact]) -> list[NodeAsk]:
    """What to ask once more where fresh packets of the asked kind were lost: the same packets again, followed through
    the firewalls of both nodes; full-size ones where only these were lost, and what follows in a connection where only
    that was. Empty where none was lost.

    known, seen: what the API said and the probes did. One NodeAsk for each node and family, source nodes first.
    """
    probes = _all(seen, ProbeResult)
    expected = expected_legs(known)
    forward = [leg for leg in expected if leg.direction == "forward"]
    lost = [leg for leg in forward if loses(leg, probes) and not _stalls(leg, probes)][:MOST_FOLLOWED]
    instead = _later(lost, probes)
    if not lost:  # else what is small is followed, of the same flow or another
        instead = _large(forward, probes)
        lost = [leg for leg in forward if leg.flow in instead][:MOST_FOLLOWED]
    nodes = {(node.name, node.family): node for node in _all(known, CalicoNode)}
    asks = _followed(expected, lost, nodes, instead)
    for family in FAMILIES:
        _follow_services(asks, known, probes, nodes, family)
    return _patient(asks, expected, probes)


def _patient(asks: Sequence[NodeAsk], expected: Sequence[Leg], probes: Sequence[ProbeResult]) -> list[NodeAsk]:
    """The asks with the time their packets are waited for: on a slow path what is late is not lost."""
    ends = {
        (leg.source_node, address)
        for leg in expected
        for address in (leg.target_address, leg.target_node_address, leg.target_internal_address)
    }
    known_us = [one.rtt_us for one in probes if one.answered and (one.node, one.target_address) in ends]
    if not known_us:
        return list(asks)
    wait_ms = min(PATIENCE_MS, max(FOLLOWED_MS, ROUND_TRIPS * max(known_us) // 1000))
    return [msgspec.structs.replace(ask, patience_ms=wait_ms) for ask in asks]


def _stalls(leg: Leg, probes: Sequence[ProbeResult]) -> bool:
    """Is it known of the asked port that only large packets are lost? Of UDP, whatever a server makes of small ones."""
    return any(one.port for one in loses_large_only(leg, probes))


def _large(forward: Sequence[Leg], probes: Sequence[ProbeResult]) -> dict[str, list[ProbeResult]]:
    """By flow what it loses for nothing but its size."""
    return {leg.flow: lost for leg in forward if (lost := loses_large_only(leg, probes))}


def _later(forward: Sequence[Leg], probes: Sequence[ProbeResult]) -> dict[str, list[ProbeResult]]:
    """By flow the connections that were made and carry nothing."""
    return {leg.flow: lost for leg in forward if leg.port_asked and (lost := loses_later_only(leg, probes))}


def inside(known: Sequence[Fact], seen: Sequence[Fact]) -> list[NodeAsk]:
    """What to ask a third time of packets that were met in a pod's own network, or ought to have been, and no further,
    and no rule of a node ended: the same again, followed through the rules inside of these pods.

    seen: with what the second look met.
    """
    probes, met = _all(seen, ProbeResult), [one for one in _all(seen, StageSighting) if one.pod and not one.train]
    ended = {frozenset((one.source_address, one.target_address)) for one in _all(seen, RuleDrop)}
    expected = expected_legs(known)
    forward = [leg for leg in expected if leg.direction == "forward"]
    instead = _large(forward, probes) if any(one.large for one in met) else _later(forward, probes)
    lost = [
        leg
        for leg in forward
        if (loses(leg, probes) or leg.flow in instead)
        and frozenset((leg.source_address, leg.target_address)) not in ended
    ]
    pods = {leg.flow: tuple(_lost_inside(leg, probes, met)) for leg in lost[:MOST_FOLLOWED]}
    nodes = {(node.name, node.family): node for node in _all(known, CalicoNode)}
    asks = _followed(expected, [leg for leg in lost[:MOST_FOLLOWED] if pods[leg.flow]], nodes, instead)
    names = {name for found in pods.values() for name in found}
    return [
        msgspec.structs.replace(ask, inside=tuple(pod.name for pod in ask.local_pods if pod.name in names))
        for ask in _patient(asks, expected, probes)
    ]


def _lost_inside(leg: Leg, probes: Sequence[ProbeResult], met: Sequence[StageSighting]) -> Iterator[str]:
    """Of both ends the pods in which packets of a leg or their answers were seen last, or should have been first."""
    ends = {False: (leg.source_address, leg.target_address), True: (leg.target_address, leg.source_address)}

    def seen(pod: str, going: str, *, reply: bool) -> int:
        found = [one.seen for one in met if (one.pod, one.reply) == (pod, reply) and one.going in (going, "")
                 and (one.source_address, one.target_address) == ends[reply]]  # fmt: skip
        return max(found, default=-1)

    if leg.source_kind == "pod" and (
        seen(leg.source, "out", reply=False) == 0 or seen(leg.source, "in", reply=True) > 0
    ):
        yield leg.source
    refused = any(one.outcome == "refused" for one in sent(leg, probes))
    silent = refused or seen(leg.target, "out", reply=True) <= 0
    if leg.target_kind == "pod" and seen(leg.target, "in", reply=False) > 0 and silent:
        yield leg.target


def passing(known: Sequence[Fact], forward: Sequence[Leg]) -> list[NodeAsk]:
    """What to ask once more about packets of these legs, which come back and by the policies should not: as `second`,
    and their answers are waited for as long as the first time."""
    nodes = {(node.name, node.family): node for node in _all(known, CalicoNode)}
    asks = _followed(expected_legs(known), forward[:MOST_FOLLOWED], nodes, {})
    return [msgspec.structs.replace(ask, patience_ms=PATIENCE_MS) for ask in asks]


def following(known: Sequence[Fact], forward: Sequence[Leg]) -> list[NodeAsk]:
    """The same packets of these legs again, followed at both ends: as `second`, wherever they were lost."""
    nodes = {(node.name, node.family): node for node in _all(known, CalicoNode)}
    return _followed(expected_legs(known), forward, nodes, {})


def _followed(
    expected: Sequence[Leg],
    forward: Sequence[Leg],
    nodes: Mapping[tuple[str, int], CalicoNode],
    instead: Mapping[str, Sequence[ProbeResult]],
) -> list[NodeAsk]:
    flows = dict.fromkeys(leg.flow for leg in forward)
    legs = [leg for leg in expected if leg.flow in flows]
    places = dict.fromkeys((pick(leg), leg.family) for pick in (_sender, _receiver) for leg in forward)
    return [
        _follow(nodes[name, family], [leg for leg in legs if leg.family == family], instead)
        for name, family in places
        if (name, family) in nodes
    ]


def _follow_services(
    asks: list[NodeAsk],
    known: Sequence[Fact],
    probes: Sequence[ProbeResult],
    nodes: Mapping[tuple[str, int], CalicoNode],
    family: int,
) -> None:
    """Packets to a Service's own address are followed on the sender's node, where kube-proxy sends them on; those to a
    nodePort also on the node that was asked, where it does so with them."""
    source = sender(known)
    if source is None or (source.node, family) not in nodes:
        return
    lost = [
        msgspec.structs.replace(one, later=all(map(only_unended, its)))
        for one in sends(known, family)
        if (its := [result for result in probes if _lost(one, source.node, result)])
    ]
    if not lost:
        return
    here = _asked_of(asks, nodes[source.node, family])
    address = address_of(source, family)
    pods = list(asks[here].local_pods)
    if lost[0].pod and _lacks(pods, source.name):
        pods.append(LocalPod(name=source.name, address=address, interface=source.interface))
    asks[here] = msgspec.structs.replace(
        asks[here],
        local_pods=tuple(pods),
        send=_unique([*asks[here].send, *lost[:MOST_FOLLOWED]]),
        trace=_unique([*asks[here].trace, *(_traced(one, address) for one in lost[:MOST_FOLLOWED])]),
    )
    asked = {one.address: one.node for one in _all(known, ServicePort) if one.by_node_port and one.family == family}
    for one in lost[:MOST_FOLLOWED]:
        there = asked.get(one.target, source.node)
        if there == source.node or (there, family) not in nodes:
            continue
        at = _asked_of(asks, nodes[there, family])
        arriving = _traced(one, address, translated=nodes[source.node, family].address if one.pod else "")
        asks[at] = msgspec.structs.replace(asks[at], trace=_unique([*asks[at].trace, arriving]))


def _asked_of(asks: list[NodeAsk], node: CalicoNode) -> int:
    """Where what this node is asked stands in `asks`, to which it is added where nothing was asked of it yet."""
    for at, ask in enumerate(asks):
        if (ask.node, ask.family) == (node.name, node.family):
            return at
    asks.append(_follow(node, (), {}))
    return len(asks) - 1


def _traced(sent: SendProbe, source: str, *, translated: str = "") -> Trace:
    return Trace(
        source=source,
        target=sent.target,
        protocol=sent.protocol,
        port=sent.port,
        translated=translated,
        count=sent.count,
        later=sent.later,
    )


def _lost(sent: SendProbe, node: str, result: ProbeResult) -> bool:
    met = (result.node, result.pod, result.target_address, result.protocol, result.port)
    return met == (node, sent.pod, sent.target, sent.protocol, sent.port) and is_lost(result)


def _follow(node: CalicoNode, legs: Sequence[Leg], instead: Mapping[str, Sequence[ProbeResult]]) -> NodeAsk:
    """instead: of the flows whose full-size packets, or what follows in their connections, are followed, what these
    met."""
    leaving = [leg for leg in legs if leg.source_node == node.name]
    arriving = [leg for leg in legs if leg.target_node == node.name]
    sending, sent = ([leg for leg in some if leg.direction == "forward"] for some in (leaving, arriving))
    return NodeAsk(
        node=node.name,
        family=node.family,
        felix=False,
        read=False,
        tunnel_device=next((leg.tunnel_device for leg in (*leaving, *arriving)), ""),
        uplink_address=node.address,
        local_pods=_unique(
            [_sending_pod(leg) for leg in sending if leg.source_kind == "pod"]
            + [_asked_pod(leg) for leg in sent if leg.target_kind == "pod"]
        ),
        send=_unique([probe for leg in sending for probe in _again(leg, instead.get(leg.flow, ()))]),
        answering=_unique(
            [_answering(leg) for leg in sent if any(one.port and one.size for one in instead.get(leg.flow, ()))]
        ),
        # By its marks the target's node tells that it follows, and knows when the last packet has come. Of the other
        # legs, on which nobody sends, nobody would say so.
        watch=_unique([*_marked("out", sending), *_marked("in", sent)]),
        trace=_unique(
            [
                _trace(node, leg, probe)
                for leg in dict.fromkeys((*leaving, *arriving))
                for probe in _again(leg, instead.get(leg.flow, ()))
            ]
        ),
        patience_ms=FOLLOWED_UNKNOWN_MS,
    )


def _marked(way: str, legs: Iterable[Leg]) -> list[Watch]:
    watches = [(leg, _watch(way, leg)) for leg in legs if leg.source_node != leg.target_node]
    return [
        watch if leg.crosses else msgspec.structs.replace(watch, encapsulation="direct", port=0)
        for leg, watch in watches
        if watch.peer
    ]


def _trace(node: CalicoNode, leg: Leg, probe: SendProbe) -> Trace:
    """probe: what is sent on the forward leg; of the other leg it is told by what kind of packets it answers."""
    tunnelled = leg.encapsulation in TUNNELS
    return Trace(
        source=leg.source_address,
        target=leg.target_address,
        protocol=probe.protocol,
        port=probe.port,
        reply=leg.direction == "reverse",
        encapsulation=leg.encapsulation if tunnelled else "",
        peer=(leg.target_node_address if leg.source_node == node.name else leg.source_node_address)
        if tunnelled
        else "",
        tunnel_port=_tunnel_port(leg),
        translated=_translated(node, leg),
        count=probe.count if leg.direction == "forward" else 0,
        large=probe.large,
        later=probe.later,
        unaltered=leg.source_kind == leg.target_kind == "pod",
    )


def _translated(node: CalicoNode, leg: Leg) -> str:
    """Where natOutgoing may hide a pod's address: from the node it sends to, and from whatever answers it."""
    if leg.source_kind == "pod" and leg.target_kind != "pod" and node.name == leg.target_node:
        return leg.source_node_address
    return leg.target_node_address if leg.target_kind == "pod" and leg.source_kind != "pod" else ""


def _again(leg: Leg, instead: Sequence[ProbeResult]) -> list[SendProbe]:
    """A small packet of the asked kind, or of any where none was asked; where others were lost, such ones."""
    pod = leg.source if leg.source_kind == "pod" else ""
    protocol, port = (leg.protocol, leg.port) if leg.port_asked else ("icmp", 0)
    found = [
        SendProbe(
            pod=pod,
            target=leg.target_address,
            protocol=one.protocol,
            port=one.port,
            size=one.size,
            large="" if not (one.port and one.size) else "back" if one.answers else "there",
            later=one.unended > 0,
        )
        for one in instead
    ]
    return found or [SendProbe(pod=pod, target=leg.target_address, protocol=protocol, port=port)]


def _answering(leg: Leg) -> Answering:
    pod = leg.target if leg.target_kind == "pod" else ""
    return Answering(pod=pod, address=leg.target_address, protocol=leg.protocol)


def _ask_services(
    asks: list[NodeAsk], facts: Sequence[Fact], nodes: Mapping[tuple[str, int], CalicoNode], family: int
) -> None:
    """The source's node sends to the Service's own address too, even where no path to an endpoint can be judged."""
    source, probes = sender(facts), sends(facts, family)
    if source is None or not probes or (source.node, family) not in nodes:
        return
    here = next((i for i, ask in enumerate(asks) if (ask.node, ask.family) == (source.node, family)), -1)
    if here < 0:
        node = nodes[source.node, family]
        felix = node.settings_read and all(ask.node != source.node for ask in asks)
        asks.append(_ask(node, "", (), felix=felix))
    ask = asks[here]
    pods = list(ask.local_pods)
    if probes[0].pod and _lacks(pods, source.name):
        pods.append(LocalPod(name=source.name, address=address_of(source, family), interface=source.interface))
    asks[here] = msgspec.structs.replace(ask, local_pods=tuple(pods), send=_unique([*ask.send, *probes]))


def expected_flows(facts: Sequence[Fact]) -> list[Flow]:
    """The flows as the deductions will find them, without the engine: planning happens before anything is judged."""
    endpoints = {one.name: one for one in _all(facts, Endpoint)}
    found: list[Flow] = []
    for question in _all(facts, Question):
        source, target = endpoints.get(question.source), endpoints.get(question.target)
        if source and target and "service" not in (source.kind, target.kind):
            found += flows(question, source, target)
        for backend in _all(facts, Backend):
            if backend.used and backend.sender in endpoints and backend.endpoint in endpoints:
                both = endpoints[backend.sender], endpoints[backend.endpoint]
                found += service_flows(question, both[0], backend, both[1])
    return list(dict.fromkeys(found))


def expected_legs(facts: Sequence[Fact]) -> list[Leg]:
    """Likewise."""
    return list(_last_legs.of(tuple([fact for fact in facts if type(fact) in OF_LEGS])))


class _LastLegs:
    """A dozen parts of one answer ask for the legs of the same facts, one after the other."""

    def __init__(self) -> None:
        self._last: tuple[tuple[Fact, ...], tuple[Leg, ...]] = (), ()

    def of(self, facts: tuple[Fact, ...]) -> tuple[Leg, ...]:
        """facts: those of OF_LEGS."""
        last = self._last  # one look: other threads may ask about other facts
        if last[0] != facts:
            last = self._last = facts, tuple(_legs(facts))
        return last[1]


_last_legs = _LastLegs()


def _legs(facts: Sequence[Fact]) -> list[Leg]:
    found: list[Leg] = []
    for settings in _all(facts, CalicoSettings):
        for flow in expected_flows(facts):
            both = sides(facts, flow)
            if len(both) == 2:
                found += legs(flow, both["source"], both["target"], settings)
    return found


def _sender(leg: Leg) -> str:
    return leg.source_node


def _receiver(leg: Leg) -> str:
    return leg.target_node


def _ask(node: CalicoNode, device: str, legs: Sequence[Leg], *, felix: bool) -> NodeAsk:
    leaving = [leg for leg in legs if leg.source_node == node.name]
    arriving = [leg for leg in legs if leg.target_node == node.name]
    sends = [probe for leg in leaving for probe in _probes(leg)] + [
        _to_own_pod(leg) for leg in arriving if leg.target_kind == "pod"
    ]
    sends += _unique([train for leg in leaving for train in _train(leg)])[:MOST_TRAINS]
    pods = [_local_pod(leg) for leg in arriving if leg.target_kind == "pod"]
    # A leg that comes back by another device is another ask's, and still it is this pod that sends.
    pods += [_sending_pod(leg) for leg in leaving if leg.source_kind == "pod" and _lacks(pods, leg.source)]
    keys = [leg.target_wireguard_key for leg in leaving if leg.encapsulation == "wireguard"]
    return NodeAsk(
        node=node.name,
        family=node.family,
        felix=felix,
        tunnel_device=device,
        uplink_address=node.address,
        felix_health_port=node.felix_health_port,
        felix_again=felix,
        felix_metrics_port=node.metrics_port if felix else 0,
        bird=any(leg.route_by == "bgp" for leg in legs),
        wireguard_keys=_unique(keys),
        ways=_unique([_way_out(leg) for leg in leaving] + [_way_in(leg) for leg in arriving if leg not in leaving]),
        local_pods=_unique(pods),
        own_ports=_unique([_own_port(leg) for leg in arriving if leg.target_kind == "node" and _port_asked(leg)]),
        send=_unique(sends),
        answering=_unique([_answering(leg) for leg in arriving if _large_asked(leg)]),
        watch=_unique(
            [_watch("out", leg) for leg in leaving if leg.crosses or _bare(leg)]
            + [_watch("in", leg) for leg in arriving if leg.crosses]
        ),
    )


def _leaves(leg: Leg) -> bool:
    """Does it lead a pod's packets out of the cluster?"""
    return leg.encapsulation == "outside" and leg.source_kind == "pod"


def _bare(leg: Leg) -> bool:
    """Do a pod's packets leave their node as they are, or stay there, and nobody else looks on?"""
    return _leaves(leg) or (leg.encapsulation == "local" and leg.steered)


def _watch(way: str, leg: Leg) -> Watch:
    return Watch(
        way=way,
        encapsulation="direct" if _bare(leg) else leg.encapsulation,
        source=leg.source_address,
        target=leg.target_address,
        peer=_looks_on(way, leg),
        port=_tunnel_port(leg),
    )


def _tunnel_port(leg: Leg) -> int:
    encrypted = leg.target_wireguard_port or WIREGUARD_PORTS[leg.family]
    return {"vxlan": leg.vxlan_port, "wireguard": encrypted}.get(leg.encapsulation, 0)


def _looks_on(way: str, leg: Leg) -> str:
    if leg.encapsulation == "local":
        return ""
    return leg.target_node_address if way == "out" else leg.source_node_address


def _lacks(pods: Iterable[LocalPod], name: str) -> bool:
    return all(pod.name != name for pod in pods)


def _way_out(leg: Leg) -> Way:
    tunnelled = leg.encapsulation == "vxlan"
    from_pod = leg.source_kind == "pod"
    return Way(
        destination=leg.target_address,
        source=leg.source_address if from_pod else "",
        incoming=leg.source_interface if from_pod else "",
        **_ports(leg),
        expected_next_hop=leg.target_tunnel_address if tunnelled else "",
        expected_mac=leg.target_tunnel_mac if tunnelled else "",
        expected_peer=leg.target_node_address if leg.crosses or leg.route_by == "felix" else "",
    )


def _way_in(leg: Leg) -> Way:
    if not leg.crosses:
        return Way(destination=leg.target_address)
    tunnel = leg.expected_device
    return Way(
        destination=leg.target_address,
        source=leg.source_address,
        incoming=tunnel,
        by_uplink=not tunnel,
        **_ports(leg),
    )


def _ports(leg: Leg) -> dict[str, Any]:
    """What is known of the packets of a leg beside their addresses: an answer comes from the port that was asked."""
    if not leg.port_asked:
        return {"protocol": "icmp"}
    return {"protocol": leg.protocol, "target_port" if leg.direction == "forward" else "source_port": leg.port}


def _local_pod(leg: Leg) -> LocalPod:
    """The pod a leg arrives at; what listens there matters only for the target of the question."""
    asked = _port_asked(leg)
    return LocalPod(
        name=leg.target,
        address=leg.target_address,
        interface=leg.target_interface,
        protocol=leg.protocol if asked else "",
        port=leg.port if asked else 0,
    )


def _own_port(leg: Leg) -> OwnPort:
    return OwnPort(name=leg.target, protocol=leg.protocol, port=leg.port)


def _port_asked(leg: Leg) -> bool:
    return leg.port_asked and leg.direction == "forward"


def _sending_pod(leg: Leg) -> LocalPod:
    return LocalPod(name=leg.source, address=leg.source_address, interface=leg.source_interface)


def _asked_pod(leg: Leg) -> LocalPod:
    return LocalPod(name=leg.target, address=leg.target_address, interface=leg.target_interface)


def _probes(leg: Leg) -> list[SendProbe]:
    """Fresh packets both ways; answers travel the other leg."""
    pod = leg.source if leg.source_kind == "pod" else ""
    peer = [leg.target_node_address, leg.target_internal_address] if leg.crosses else []
    between = [SendProbe(pod="", target=address, protocol="icmp") for address in dict.fromkeys(peer)]
    if leg.direction == "reverse" and leg.source_kind != "pod":
        return between  # a node does not begin conversations with who asks it
    probes = [
        *between,
        SendProbe(pod=pod, target=leg.target_address, protocol="icmp"),
        SendProbe(pod=pod, target=leg.target_address, protocol="icmp", size=-1),
    ]
    if leg.port_asked and leg.direction == "forward":
        asked = SendProbe(pod=pod, target=leg.target_address, protocol=leg.protocol, port=leg.port)
        probes.append(asked)
        if _large_asked(leg):
            probes += [msgspec.structs.replace(asked, large=way) for way in ("there", "back")]
    if _leaves(leg):  # does the outside answer the node itself?
        probes += [msgspec.structs.replace(probe, pod="") for probe in probes if not (probe.size or probe.large)]
    return probes


def _large_asked(leg: Leg) -> bool:
    """Are full-size packets of the asked port sent? Not to what is outside: what its networks let pass in a first
    packet of a connection, and in which size, is not the cluster's."""
    return leg.port_asked and leg.direction == "forward" and leg.target_kind != "outside"


def _train(leg: Leg) -> list[SendProbe]:
    """More packets of the asked kind, each with a new port or id, lest what is lost only now and then be called well.
    To pods alone: a node may be asked only so many times in a second, and what is outside not at all."""
    if leg.direction != "forward" or leg.target_kind != "pod":
        return []
    by_tcp = leg.port_asked and leg.protocol == "tcp"
    return [
        SendProbe(
            pod=leg.source if leg.source_kind == "pod" else "",
            target=leg.target_address,
            protocol="tcp" if by_tcp else "icmp",
            port=leg.port if by_tcp else 0,
            count=TRAIN,
            every_ms=TRAIN_EVERY_MS,
            once=True,
        )
    ]


def _to_own_pod(leg: Leg) -> SendProbe:
    return SendProbe(pod="", target=leg.target_address, protocol="icmp")


def _unique(things: list[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(things))


def _all(facts: Sequence[Fact], kind: type[F]) -> list[F]:
    return [fact for fact in facts if isinstance(fact, kind)]
