"""The two directions of the flow and how packets of each should travel; every rule about a path hangs on these."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from engine.rule import derive, some
from facts import CalicoSettings, Leg, Question, Side
from facts.flow import TUNNEL_DEVICE


def encapsulation(sender: Side, receiver: Side) -> str:
    """How Calico sends from one side to the other: the receiver's pool decides (calico.md 3.1 to 3.4).

    "local" | "vxlan" | "direct" | "ipip" | "wireguard" | "unknown".
    """
    if sender.bpf or receiver.bpf:
        return "unknown"
    if sender.node == receiver.node:
        return "local"
    if sender.wireguard and receiver.wireguard:
        return "wireguard"
    if not receiver.vxlan_mode:
        return "unknown"
    for name, mode in (("vxlan", receiver.vxlan_mode), ("ipip", receiver.ipip_mode)):
        if mode == "Always":
            return name
        if mode == "CrossSubnet":
            return _cross_subnet(name, sender, receiver)
    return "direct"


def _cross_subnet(name: str, sender: Side, receiver: Side) -> str:
    if not sender.node_subnet or not receiver.node_address:
        return "unknown"
    same = ip_address(receiver.node_address) in ip_network(sender.node_subnet)
    return "direct" if same else name


def route_by(how: str, receiver: Side) -> str:
    """Who writes the route to the receiver's block: Felix for every VXLAN pool, else BGP; "" where none is judged."""
    if how == "vxlan" or (how == "direct" and receiver.vxlan_mode == "CrossSubnet"):
        return "felix"
    return "bgp" if how == "direct" else ""


def legs(question: Question, source: Side, target: Side, settings: CalicoSettings) -> list[Leg]:
    """Forward and reverse leg."""
    return [_leg("forward", question, source, target, settings), _leg("reverse", question, target, source, settings)]


def _leg(direction: str, question: Question, sender: Side, receiver: Side, settings: CalicoSettings) -> Leg:
    how = encapsulation(sender, receiver)
    by = route_by(how, receiver)
    next_hop = {"vxlan": receiver.tunnel_address, "direct": receiver.node_address}.get(how, "")
    return Leg(
        direction=direction,
        encapsulation=how,
        source=sender.endpoint,
        target=receiver.endpoint,
        source_address=sender.address,
        target_address=receiver.address,
        source_interface=sender.interface,
        target_interface=receiver.interface,
        source_node=sender.node,
        target_node=receiver.node,
        source_node_address=sender.node_address,
        target_node_address=receiver.node_address,
        source_tunnel_address=sender.tunnel_address,
        target_tunnel_address=receiver.tunnel_address,
        source_tunnel_mac=sender.tunnel_mac,
        target_tunnel_mac=receiver.tunnel_mac,
        target_block=receiver.block,
        routed=bool(by),
        route_by=by,
        expected_next_hop=next_hop if by == "felix" else "",
        expected_device=TUNNEL_DEVICE if how == "vxlan" else "",
        cross_subnet=receiver.vxlan_mode == "CrossSubnet",
        source_node_subnet=sender.node_subnet,
        vni=sender.vni,
        vxlan_port=sender.vxlan_port,
        port_asked=bool(question.protocol),
        protocol=question.protocol,
        port=question.port,
        calico_version=settings.version,
    )


@derive(
    question=some(Question),
    source=some(Side, role="source"),
    target=some(Side, role="target"),
    settings=some(CalicoSettings),
)
def leg(question: Question, source: Side, target: Side, settings: CalicoSettings) -> list[Leg]:
    return legs(question, source, target, settings)
