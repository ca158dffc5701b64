"""What to ask of which node, decided once from what the API said; without it rules would have to ask back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from engine.deductions.leg import legs
from engine.deductions.side import sides
from facts import (
    Allocation,
    CalicoNode,
    CalicoSettings,
    Endpoint,
    Fact,
    Leg,
    LocalPod,
    NodeAsk,
    Question,
    SendProbe,
    Side,
    Way,
)

F = TypeVar("F", bound=Fact)


def plan(facts: Sequence[Fact]) -> list[NodeAsk]:
    """One NodeAsk per node of the flow, source node first; empty when the flow has no two legs to look at."""
    both = expected_legs(facts)
    nodes = {node.name: node for node in _all(facts, CalicoNode)}
    names = list(dict.fromkeys(leg.source_node for leg in both))
    return [_ask(nodes[name], [leg for leg in both if leg.source_node == name], both) for name in names]


def expected_legs(facts: Sequence[Fact]) -> list[Leg]:
    """The legs as the deductions will find them, without the engine: planning happens before anything is judged."""
    questions, settings = _all(facts, Question), _all(facts, CalicoSettings)
    nodes = {node.name: node for node in _all(facts, CalicoNode)}
    allocations = {one.address: one for one in _all(facts, Allocation)}
    found: dict[str, Side] = {}
    for endpoint in _all(facts, Endpoint):
        node, allocation = nodes.get(endpoint.node), allocations.get(endpoint.address)
        if endpoint.kind == "pod" and not endpoint.host_network and endpoint.address and node and allocation:
            found |= {side.role: side for question in questions for side in sides(question, endpoint, node, allocation)}
    if not (questions and settings and "source" in found and "target" in found):
        return []
    return legs(questions[0], found["source"], found["target"], settings[0])


def _ask(node: CalicoNode, leaving: list[Leg], both: list[Leg]) -> NodeAsk:
    arriving = [leg for leg in both if leg.target_node == node.name]
    return NodeAsk(
        node=node.name,
        tunnel_device=both[0].tunnel_device,
        uplink_address=node.address,
        felix_health_port=node.felix_health_port,
        felix_again=True,
        ways=_unique([_way_out(leg) for leg in leaving] + [_way_in(leg) for leg in arriving if leg not in leaving]),
        local_pods=_unique([_local_pod(leg) for leg in arriving]),
        send=_unique([probe for leg in leaving for probe in _probes(leg)] + [_to_own_pod(leg) for leg in arriving]),
    )


def _way_out(leg: Leg) -> Way:
    tunnelled = leg.encapsulation == "vxlan"
    return Way(
        destination=leg.target_address,
        source=leg.source_address,
        incoming=leg.source_interface,
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


def _probes(leg: Leg) -> list[SendProbe]:
    probes = [
        SendProbe(pod=leg.source, target=leg.target_address, protocol="icmp"),
        SendProbe(pod=leg.source, target=leg.target_address, protocol="icmp", size=-1),
    ]
    if leg.port_asked and leg.direction == "forward":
        probes.append(SendProbe(pod=leg.source, target=leg.target_address, protocol=leg.protocol, port=leg.port))
    return probes


def _to_own_pod(leg: Leg) -> SendProbe:
    return SendProbe(pod="", target=leg.target_address, protocol="icmp")


T = TypeVar("T")


def _unique(things: list[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(things))


def _all(facts: Sequence[Fact], kind: type[F]) -> list[F]:
    return [fact for fact in facts if isinstance(fact, kind)]
