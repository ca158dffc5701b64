"""Where each end of the question lives: pod, node and IPAM block brought together, so that rules need not."""

from __future__ import annotations

from engine.rule import derive, some, the
from facts import Allocation, CalicoNode, Endpoint, Question, Side


def sides(question: Question, endpoint: Endpoint, node: CalicoNode, allocation: Allocation) -> list[Side]:
    """The Side facts of one endpoint: one, or two when a pod asks about itself."""
    roles = [role for role, name in (("source", question.source), ("target", question.target)) if name == endpoint.name]
    return [
        Side(
            role=role,
            endpoint=endpoint.name,
            address=endpoint.address,
            interface=endpoint.interface,
            node=node.name,
            node_address=node.address,
            node_subnet=node.subnet,
            tunnel_address=node.tunnel_address,
            tunnel_mac=node.tunnel_mac,
            block=allocation.block,
            vxlan_mode=allocation.vxlan_mode,
            ipip_mode=allocation.ipip_mode,
            vni=node.vni,
            vxlan_port=node.vxlan_port,
            bpf=node.bpf,
            wireguard=node.wireguard,
        )
        for role in roles
    ]


@derive(
    question=some(Question),
    endpoint=some(Endpoint, kind="pod", host_network=False),
    node=some(CalicoNode, name=the.endpoint.node),
    allocation=some(Allocation, address=the.endpoint.address),
)
def side(question: Question, endpoint: Endpoint, node: CalicoNode, allocation: Allocation) -> list[Side]:
    return sides(question, endpoint, node, allocation)
