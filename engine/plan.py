"""What to ask of which node, decided once from what the API said; without it rules would have to ask back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from engine.deductions.flow import flows
from engine.deductions.leg import legs
from engine.ends import sides
from facts import CalicoNode, CalicoSettings, Endpoint, Fact, Flow, Leg, LocalPod, NodeAsk, Question, SendProbe, Way

F = TypeVar("F", bound=Fact)
T = TypeVar("T")


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
        asks.append(_ask(node, device, of_group, felix=all(ask.node != name for ask in asks)))
    return asks


def expected_flows(facts: Sequence[Fact]) -> list[Flow]:
    """The flows as the deductions will find them, without the engine: planning happens before anything is judged."""
    endpoints = {one.name: one for one in _all(facts, Endpoint)}
    return [
        flow
        for question in _all(facts, Question)
        if question.source in endpoints and question.target in endpoints
        for flow in flows(question, endpoints[question.source], endpoints[question.target])
    ]


def expected_legs(facts: Sequence[Fact]) -> list[Leg]:
    """Likewise."""
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
    pods = [_local_pod(leg) for leg in arriving if leg.target_kind == "pod"]
    # A leg that comes back by another device is another ask's, and still it is this pod that sends.
    pods += [_sending_pod(leg) for leg in leaving if leg.source_kind == "pod" and _lacks(pods, leg.source)]
    return NodeAsk(
        node=node.name,
        family=node.family,
        felix=felix,
        tunnel_device=device,
        uplink_address=node.address,
        felix_health_port=node.felix_health_port,
        felix_again=felix,
        ways=_unique([_way_out(leg) for leg in leaving] + [_way_in(leg) for leg in arriving if leg not in leaving]),
        local_pods=_unique(pods),
        send=_unique(sends),
    )


def _lacks(pods: Iterable[LocalPod], name: str) -> bool:
    return all(pod.name != name for pod in pods)


def _way_out(leg: Leg) -> Way:
    tunnelled = leg.encapsulation == "vxlan"
    from_pod = leg.source_kind == "pod"
    return Way(
        destination=leg.target_address,
        source=leg.source_address if from_pod else "",
        incoming=leg.source_interface if from_pod else "",
        expected_next_hop=leg.target_tunnel_address if tunnelled else "",
        expected_mac=leg.target_tunnel_mac if tunnelled else "",
        expected_peer=leg.target_node_address if leg.route_by == "felix" else "",
    )


def _way_in(leg: Leg) -> Way:
    if leg.encapsulation == "vxlan":
        return Way(destination=leg.target_address, source=leg.source_address, incoming=leg.tunnel_device)
    return Way(destination=leg.target_address)


def _local_pod(leg: Leg) -> LocalPod:
    """The pod a leg arrives at; what listens there matters only for the target of the question."""
    asked = leg.port_asked and leg.direction == "forward"
    return LocalPod(
        name=leg.target,
        address=leg.target_address,
        interface=leg.target_interface,
        protocol=leg.protocol if asked else "",
        port=leg.port if asked else 0,
    )


def _sending_pod(leg: Leg) -> LocalPod:
    return LocalPod(name=leg.source, address=leg.source_address, interface=leg.source_interface)


def _probes(leg: Leg) -> list[SendProbe]:
    """Fresh packets both ways; answers travel the other leg."""
    pod = leg.source if leg.source_kind == "pod" else ""
    if leg.direction == "reverse" and leg.source_kind != "pod":
        return []  # a node does not begin conversations with who asks it
    probes = [
        SendProbe(pod=pod, target=leg.target_address, protocol="icmp"),
        SendProbe(pod=pod, target=leg.target_address, protocol="icmp", size=-1),
    ]
    if leg.port_asked and leg.direction == "forward":
        probes.append(SendProbe(pod=pod, target=leg.target_address, protocol=leg.protocol, port=leg.port))
    return probes


def _to_own_pod(leg: Leg) -> SendProbe:
    return SendProbe(pod="", target=leg.target_address, protocol="icmp")


def _unique(things: list[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(things))


def _all(facts: Sequence[Fact], kind: type[F]) -> list[F]:
    return [fact for fact in facts if isinstance(fact, kind)]
