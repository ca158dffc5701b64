"""Both ends of a flow brought together with their node and block, for the rules and for the plan alike."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import msgspec

from facts import Allocation, CalicoNode, Endpoint, Fact, Flow, Side

ROLES = ("source", "target")


def end(flow: Flow, role: str) -> tuple[str, str]:
    """(name of its Endpoint, address) of one end."""
    return (flow.source, flow.source_address) if role == "source" else (flow.target, flow.target_address)


def pod_side(flow: Flow, role: str, endpoint: Endpoint, node: CalicoNode, allocation: Allocation) -> list[Side]:
    """A pod with a network of its own; nothing for other endpoints."""
    if endpoint.kind != "pod" or endpoint.host_network:
        return []
    return [_side(flow, role, "pod", endpoint, node, allocation)]


def node_side(flow: Flow, role: str, endpoint: Endpoint, node: CalicoNode) -> list[Side]:
    """A node, or a pod on its node's own network, to which Calico gave no address; nothing for other endpoints."""
    if endpoint.kind == "node" or endpoint.host_network:
        return [_side(flow, role, "node", endpoint, node)]
    return []


def outside_side(flow: Flow, role: str, endpoint: Endpoint) -> list[Side]:
    """An address that no pod and no node has; nothing for other endpoints."""
    return [_side(flow, role, "outside", endpoint)] if endpoint.kind == "address" else []


def sides(facts: Sequence[Fact], flow: Flow) -> dict[str, Side]:
    """role -> Side, as the deductions will find them."""
    endpoints = {one.name: one for one in facts if isinstance(one, Endpoint)}
    nodes = {one.name: one for one in facts if isinstance(one, CalicoNode) and one.family == flow.family}
    allocations = {one.address: one for one in facts if isinstance(one, Allocation)}
    found: list[Side] = []
    for role in ROLES:
        name, address = end(flow, role)
        endpoint = endpoints[name]
        node, allocation = nodes.get(endpoint.node), allocations.get(address)
        found += outside_side(flow, role, endpoint)
        if node:
            found += node_side(flow, role, endpoint, node)
        if node and allocation:
            found += pod_side(flow, role, endpoint, node, allocation)
    return {side.role: side for side in found}


def range_of(node: CalicoNode, address: str) -> str:
    """The node's own range that holds an address, which is its block with host-local IPAM; "" for none."""
    return next((cidr for cidr in node.pod_cidrs if ip_address(address) in ip_network(cidr)), "")


def _side(
    flow: Flow,
    role: str,
    kind: str,
    endpoint: Endpoint,
    node: CalicoNode | None = None,
    allocation: Allocation | None = None,
) -> Side:
    side = Side(
        flow=flow.name, role=role, family=flow.family, kind=kind, endpoint=endpoint.name, address=end(flow, role)[1]
    )
    if allocation:
        side = msgspec.structs.replace(
            side,
            interface=endpoint.interface,
            block=allocation.block or (range_of(node, allocation.address) if node else ""),
            in_block=bool(allocation.block),
            vxlan_mode=allocation.vxlan_mode,
            ipip_mode=allocation.ipip_mode,
            nat_outgoing=allocation.nat_outgoing,
            pools_read=allocation.pools_read,
        )
    if node:
        side = msgspec.structs.replace(
            side,
            node=node.name,
            node_address=node.address,
            node_subnet=node.subnet,
            internal_address=node.internal_address if (":" in node.internal_address) == (node.family == 6) else "",
            tunnel_address=node.tunnel_address,
            tunnel_mac=node.tunnel_mac,
            tunnel_block=node.tunnel_block,
            ipip_address=node.ipip_address,
            ipip_block=node.ipip_block,
            wireguard_address=node.wireguard_address,
            wireguard_block=node.wireguard_block,
            vni=node.vni,
            vxlan_port=node.vxlan_port,
            bpf=node.bpf,
            wireguard_key=node.wireguard_key if node.wireguard else "",
            wireguard_device=node.wireguard_device,
            wireguard_port=node.wireguard_port,
            windows=node.system == "windows",
            foreign_dataplane=node.foreign_dataplane,
            settings_read=node.settings_read,
        )
    return side
