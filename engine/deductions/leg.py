"""The two directions of a flow and how packets of each should travel; every rule about a path hangs on these."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import msgspec

from engine.rule import derive, some, the
from facts import CalicoSettings, Flow, Leg, Side
from facts.flow import FORWARDING, TUNNEL_DEVICES

TUNNELS = ("vxlan", "ipip", "wireguard")


def encapsulation(sender: Side, receiver: Side) -> str:
    """How one side sends to the other: to a pod as the pod's pool says (calico.md 3.1 to 3.4).

    "local" | "vxlan" | "direct" | "ipip" | "wireguard" | "host" (from node to node) | "outside" | "unknown".
    """
    if "outside" in (sender.kind, receiver.kind):
        return "outside"
    if obstacle(sender, receiver):
        return "unknown"
    if sender.node == receiver.node:
        return "local"
    if receiver.kind == "node":
        return "host"
    return _by_pool(sender, receiver)


def _by_pool(sender: Side, receiver: Side) -> str:
    """Two nodes with keys encrypt whatever the pool says; one without is sent to as the pool says."""
    if sender.wireguard_key and receiver.wireguard_key:
        return "wireguard"
    modes = [("vxlan", receiver.vxlan_mode)] + [("ipip", receiver.ipip_mode)] * (receiver.family == 4)
    for name, mode in modes:
        if mode == "Always":
            return name
        if mode == "CrossSubnet":
            return _cross_subnet(name, sender, receiver)
    return "direct"


def _cross_subnet(name: str, sender: Side, receiver: Side) -> str:
    return "direct" if _same_subnet(sender, receiver) else name


def _same_subnet(sender: Side, receiver: Side) -> bool:
    known = sender.node_subnet and receiver.node_address
    return bool(known) and ip_address(receiver.node_address) in ip_network(sender.node_subnet)


def obstacle(sender: Side, receiver: Side) -> str:
    """What keeps this version from saying how one side sends to the other; "" for nothing. As Leg.obstacle."""
    if sender.windows or receiver.windows:
        return "windows"
    if not (sender.settings_read and receiver.settings_read):
        return "settings"
    if sender.foreign_dataplane or receiver.foreign_dataplane:
        return "driver"
    if sender.bpf or receiver.bpf:
        return "ebpf"
    if sender.node == receiver.node or receiver.kind == "node":
        return ""
    if not (sender.wireguard_key and receiver.wireguard_key):
        if not receiver.vxlan_mode:
            if not receiver.pools_read:
                return "pools"
            return "pool_gone" if receiver.in_block else "pool"
        by_subnet = "CrossSubnet" in (receiver.vxlan_mode, receiver.ipip_mode)
        if by_subnet and not (sender.node_subnet and receiver.node_address):
            return "subnet"
    # A node without an address for its tunnel (WireGuard that encrypts hosts, host-local IPAM) sends under another.
    unknown = sender.kind == "node" and _by_pool(sender, receiver) in ("ipip", "wireguard")
    return "node" if unknown and not _own_in(_by_pool(sender, receiver), sender)[0] else ""


def _own_in(how: str, sender: Side) -> tuple[str, str]:
    """(address, its block) under which a node itself sends into such a tunnel."""
    if how == "ipip":
        return sender.ipip_address, sender.ipip_block
    if how == "wireguard":
        return sender.wireguard_address, sender.wireguard_block
    return (sender.tunnel_address, sender.tunnel_block) if how == "vxlan" else ("", "")


def route_owner(how: str, sender: Side, receiver: Side, settings: CalicoSettings) -> str:
    """Who is told to write the route to the receiver's block, as Leg.route_owner: Felix for every VXLAN pool."""
    if how == "vxlan" or (how == "direct" and receiver.vxlan_mode == "CrossSubnet"):
        return "felix"
    if how == "ipip" or (how == "direct" and receiver.ipip_mode == "CrossSubnet"):
        return settings.ipip_routes_by
    return settings.plain_routes_by if how == "direct" else ""


def route_by(how: str, sender: Side, receiver: Side, settings: CalicoSettings) -> str:
    """As Leg.route_by. Only of what Felix alone writes is one route for each block to be expected."""
    if how not in ("vxlan", "ipip", "direct"):
        return ""
    owner = route_owner(how, sender, receiver, settings)
    # Without any encapsulation between subnets a router has to know the way, whoever writes routes here.
    plain = how == "direct" and "CrossSubnet" not in (receiver.vxlan_mode, receiver.ipip_mode)
    if owner == "felix" and not (plain and not _same_subnet(sender, receiver)):
        return "felix"
    return "bgp"


def next_hop(how: str, receiver: Side) -> str:
    """Of the route that leads there, where Felix writes it; "" where the node's annotations do not tell."""
    return receiver.tunnel_address if how == "vxlan" else receiver.node_address


def tunnel_device(how: str, sender: Side) -> str:
    """By which the sender's packets leave; where they need none the one of VXLAN, whose state is looked at anyway."""
    device = TUNNEL_DEVICES[how if how in TUNNELS else "vxlan", sender.family]
    return sender.wireguard_device or device if how == "wireguard" else device


def legs(flow: Flow, source: Side, target: Side, settings: CalicoSettings) -> list[Leg]:
    """Forward and reverse leg. What a node sends into a tunnel carries its tunnel address, so answers come by it."""
    there = encapsulation(source, target)
    back = encapsulation(target, source)
    own, block = _own_in(there, source) if source.kind == "node" else ("", "")
    if own:
        source = msgspec.structs.replace(
            source,
            address=own,
            block=block,
            vxlan_mode=target.vxlan_mode,
            ipip_mode=target.ipip_mode,
        )
        back = _by_pool(target, source)  # nodes that disagree on their subnet may well answer without the tunnel
    elif source.kind == "node" and there == "direct":
        back = there  # answers are not translated: they cross the network under the pod's own address
    elif source.kind == "pod" and target.kind == "node" and there == "host":
        if source.nat_outgoing:
            back = "host"  # the source's node sends it under its own address, and takes the answers
        else:
            there = "direct"  # it crosses the network under the pod's own address
    return [
        _leg("forward", there, flow, source, target, settings),
        _leg("reverse", back, flow, target, source, settings),
    ]


def _leg(direction: str, how: str, flow: Flow, sender: Side, receiver: Side, settings: CalicoSettings) -> Leg:
    from_calico = bool(receiver.block) or receiver.kind == "pod"
    by = route_by(how, sender, receiver, settings) if from_calico else ""
    device = tunnel_device(how, sender)
    return Leg(
        flow=flow.name,
        family=flow.family,
        direction=direction,
        encapsulation=how,
        source=sender.endpoint,
        target=receiver.endpoint,
        source_kind=sender.kind,
        target_kind=receiver.kind,
        source_inside=sender.kind != "outside",
        target_inside=receiver.kind != "outside",
        entry_device=sender.interface or device,
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
        source_block=sender.block,
        target_block=receiver.block,
        routed=bool(by) or how == "wireguard",
        steered=bool(by) or how == "wireguard" or _within_node(how, sender, receiver),
        route_by=by,
        route_owner=route_owner(how, sender, receiver, settings) if from_calico else "",
        obstacle=obstacle(sender, receiver) if how == "unknown" else "",
        expected_next_hop=next_hop(how, receiver) if by == "felix" else "",
        expected_device=device if how in TUNNELS else "",
        cross_subnet="CrossSubnet" in (receiver.vxlan_mode, receiver.ipip_mode),
        source_node_subnet=sender.node_subnet,
        source_wireguard_key=sender.wireguard_key,
        target_wireguard_key=receiver.wireguard_key,
        target_wireguard_port=receiver.wireguard_port,
        tunnel_device=device,
        forwarding=FORWARDING[flow.family],
        vni=sender.vni,
        vxlan_port=sender.vxlan_port,
        port_asked=bool(flow.protocol),
        node_port=flow.node_port if direction == "forward" else 0,
        node_port_protocol=flow.node_port_protocol if direction == "forward" else "",
        protocol=flow.protocol,
        port=flow.port,
        calico_version=settings.version,
        crosses=how in (*TUNNELS, "direct")
        and all((sender.address, receiver.address, sender.node_address, receiver.node_address)),
        target_internal_address=receiver.internal_address or receiver.node_address,
    )


def _within_node(how: str, sender: Side, receiver: Side) -> bool:
    """From one pod to another of its node. What a pod sends to itself never leaves it."""
    return how == "local" and {sender.kind, receiver.kind} == {"pod"} and sender.endpoint != receiver.endpoint


@derive(
    flow=some(Flow),
    source=some(Side, role="source", flow=the.flow.name),
    target=some(Side, role="target", flow=the.flow.name),
    settings=some(CalicoSettings),
)
def leg(flow: Flow, source: Side, target: Side, settings: CalicoSettings) -> list[Leg]:
    return legs(flow, source, target, settings)
