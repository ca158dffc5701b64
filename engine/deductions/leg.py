"""The two directions of a flow and how packets of each should travel; every rule about a path hangs on these."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import msgspec

from engine.rule import derive, some, the
from facts import CalicoSettings, Flow, Leg, Side
from facts.flow import TUNNEL_DEVICES

TUNNELS = ("vxlan", "ipip", "wireguard")


def encapsulation(sender: Side, receiver: Side) -> str:
    """How one side sends to the other: to a pod as the pod's pool says (calico.md 3.1 to 3.4).

    "local" | "vxlan" | "direct" | "ipip" | "wireguard" | "host" (from node to node) | "outside" | "unknown".
    """
    if "outside" in (sender.kind, receiver.kind):
        return "outside"
    if sender.bpf or receiver.bpf:
        return "unknown"
    if sender.node == receiver.node:
        return "local"
    if receiver.kind == "node":
        return "host"
    if sender.wireguard and receiver.wireguard:
        return "wireguard"
    if not receiver.vxlan_mode:
        return "unknown"
    modes = [("vxlan", receiver.vxlan_mode)] + [("ipip", receiver.ipip_mode)] * (receiver.family == 4)
    for name, mode in modes:
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


def legs(flow: Flow, source: Side, target: Side, settings: CalicoSettings) -> list[Leg]:
    """Forward and reverse leg. What a node sends into a tunnel carries its tunnel address, so answers come by it."""
    there = encapsulation(source, target)
    back = encapsulation(target, source)
    if source.kind == "node" and there in TUNNELS and source.tunnel_address:
        source = msgspec.structs.replace(
            source,
            address=source.tunnel_address,
            block=source.tunnel_block,
            vxlan_mode=target.vxlan_mode,
            ipip_mode=target.ipip_mode,
        )
        back = there
    elif source.kind == "pod" and source.nat_outgoing and target.kind == "node" and there == "host":
        back = "host"  # the source's node sends it under its own address, and takes the answers
    return [
        _leg("forward", there, flow, source, target, settings),
        _leg("reverse", back, flow, target, source, settings),
    ]


def _leg(direction: str, how: str, flow: Flow, sender: Side, receiver: Side, settings: CalicoSettings) -> Leg:
    by = route_by(how, receiver) if receiver.block or receiver.kind == "pod" else ""
    next_hop = {"vxlan": receiver.tunnel_address, "direct": receiver.node_address}.get(how, "")
    device = TUNNEL_DEVICES[how if how in TUNNELS else "vxlan", flow.family]
    return Leg(
        flow=flow.name,
        family=flow.family,
        direction=direction,
        encapsulation=how,
        source=sender.endpoint,
        target=receiver.endpoint,
        source_kind=sender.kind,
        target_kind=receiver.kind,
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
        expected_device=device if how in TUNNELS else "",
        cross_subnet=receiver.vxlan_mode == "CrossSubnet",
        source_node_subnet=sender.node_subnet,
        tunnel_device=device,
        vni=sender.vni,
        vxlan_port=sender.vxlan_port,
        port_asked=bool(flow.protocol),
        protocol=flow.protocol,
        port=flow.port,
        calico_version=settings.version,
    )


@derive(
    flow=some(Flow),
    source=some(Side, role="source", flow=the.flow.name),
    target=some(Side, role="target", flow=the.flow.name),
    settings=some(CalicoSettings),
)
def leg(flow: Flow, source: Side, target: Side, settings: CalicoSettings) -> list[Leg]:
    return legs(flow, source, target, settings)
