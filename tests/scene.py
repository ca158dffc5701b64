"""A healthy flow in hand-written facts; the tests wound it one fact at a time."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.plan import expected_legs
from facts import (
    AddressHolders,
    Allocation,
    CalicoNode,
    CalicoSettings,
    Endpoint,
    Fact,
    FdbEntry,
    FelixHealth,
    Link,
    LinkAddresses,
    Listener,
    Neighbor,
    PodInterface,
    PodRoute,
    Pool,
    ProbeResult,
    Question,
    RouteLookup,
    Sysctl,
)

DEVICE = "vxlan.calico"
GATEWAY = "169.254.1.1"
NODES = {
    "node-a": ("172.30.0.11", "10.244.174.128", "66:07:02:c1:cc:60", "10.244.174.128/26"),
    "node-b": ("172.30.0.12", "10.244.218.64", "66:89:3a:22:7a:ac", "10.244.218.64/26"),
}
CART = ("shop/cart", "node-a", "10.244.174.132", "cali4c1aaaaaaaa")
DB = ("shop/db", "node-b", "10.244.218.68", "cali0d0bbbbbbbb")
WEB = ("shop/web", "node-a", "10.244.174.133", "cali77e0ccccccc")


def healthy(
    source: tuple[str, str, str, str] = CART, target: tuple[str, str, str, str] = DB, *, port: int = 5432
) -> list[Fact]:
    """Everything the API and both probes say about two pods that reach each other."""
    facts: list[Fact] = [
        Question(source=source[0], target=target[0], protocol="tcp" if port else "", port=port),
        CalicoSettings(version="v3.32.1", group="crd.projectcalico.org/v1"),
        Pool(name="default-ipv4-ippool", cidr="10.244.0.0/16", block_size=26, vxlan_mode="Always"),
    ]
    pods = list(dict.fromkeys((source, target)))
    for name, node, address, interface in pods:
        facts.append(
            Endpoint(
                name=name, kind="pod", node=node, address=address, addresses=(address,), phase="Running", ready=True,
                interface=interface,
            )
        )  # fmt: skip
        facts.append(AddressHolders(address=address, pods=(name,)))
        facts.append(
            Allocation(
                address=address, found=True, block=NODES[node][3], block_node=node, pool="default-ipv4-ippool",
                vxlan_mode="Always", ipip_mode="Never", owner_kind="pod", owner=name, node=node,
            )
        )  # fmt: skip
    for node in dict.fromkeys(pod[1] for pod in pods):
        facts += _node(node)
    for leg in expected_legs(facts):
        facts += _seen_of(leg)
    return list(dict.fromkeys(facts))


def _node(name: str) -> list[Fact]:
    address, tunnel, mac, block = NODES[name]
    return [
        CalicoNode(
            name=name, address=address, subnet="172.30.0.0/24", internal_address=address, tunnel_address=tunnel,
            tunnel_mac=mac, vxlan_expected=True,
        ),
        Allocation(
            address=tunnel, found=True, block=block, block_node=name, pool="default-ipv4-ippool", vxlan_mode="Always",
            ipip_mode="Never", handle=f"vxlan-tunnel-addr-{name}", owner_kind="vxlanTunnelAddress", owner=name,
            node=name,
        ),
        Link(
            node=name, device=DEVICE, found=True, up=True, lower_up=True, operstate="UNKNOWN", mac=mac, mtu=1450,
            link_kind="vxlan", vni=4096, vxlan_port=4789, vxlan_local=address, parent="eth0",
        ),
        LinkAddresses(node=name, device=DEVICE, found=True, addresses=(f"{tunnel}/32",)),
        Link(
            node=name, device="eth0", found=True, up=True, lower_up=True, operstate="UP", mac="02:00:00:00:00:01",
            mtu=1500, link_kind="veth", node_address=address,
        ),
        RouteLookup(
            node=name, destination=GATEWAY, found=True, type="unicast", prefix="0.0.0.0/0", next_hop="172.30.0.1",
            device="eth0", table=254, protocol=3, scope=0,
        ),
        Sysctl(node=name, name="net.ipv4.ip_forward", found=True, value="1"),
        _switch(name, DEVICE, "forwarding"),
        _switch(name, "all", "proxy_arp", "0"),
        FelixHealth(node=name, reachable=True, live=True, ready=True),
    ]  # fmt: skip


def _switch(node: str, device: str, switch: str, value: str = "1") -> Sysctl:
    name = f"net.ipv4.conf.{device}.{switch}"
    return Sysctl(node=node, name=name, found=True, value=value, device=device, switch=switch)


def _seen_of(leg: Any) -> list[Fact]:
    facts: list[Fact] = [
        RouteLookup(
            node=leg.target_node, destination=leg.target_address, found=True, type="unicast",
            prefix=f"{leg.target_address}/32", device=leg.target_interface, table=254, protocol=3, scope=253,
        ),
        Neighbor(node=leg.target_node, device=leg.target_interface, address=leg.target_address, found=False),
        PodInterface(
            node=leg.source_node, pod=leg.source, interface=leg.source_interface, found=True, up=True, lower_up=True,
            mac="ee:ee:ee:ee:ee:ee", mtu=1450, entered=True, pod_device="eth0", pod_up=True,
            pod_mtu=1450, pod_addresses=(f"{leg.source_address}/32",), pod_default_next_hop=GATEWAY,
        ),
        PodRoute(
            node=leg.source_node, pod=leg.source, destination=leg.target_address, found=True, prefix="0.0.0.0/0",
            next_hop=GATEWAY, device="eth0",
        ),
        RouteLookup(
            node=leg.source_node, destination=GATEWAY, source=leg.source_address, incoming=leg.source_interface,
            found=True, type="unicast", prefix="0.0.0.0/0", next_hop="172.30.0.1", device="eth0", table=254, protocol=3,
            scope=0, rp_filter=0,
        ),
        _switch(leg.source_node, leg.source_interface, "forwarding"),
        _switch(leg.source_node, leg.source_interface, "proxy_arp"),
        ProbeResult(
            node=leg.source_node, pod=leg.source, source_address=leg.source_address, target_address=leg.target_address,
            protocol="icmp", sent=2, answered=2, outcome="answered", rtt_us=300,
        ),
        ProbeResult(
            node=leg.source_node, pod=leg.source, source_address=leg.source_address, target_address=leg.target_address,
            protocol="icmp", size=1450, sent=2, answered=2, outcome="answered", rtt_us=310,
        ),
    ]  # fmt: skip
    if leg.port_asked and leg.direction == "forward":
        facts += [
            ProbeResult(
                node=leg.source_node, pod=leg.source, source_address=leg.source_address,
                target_address=leg.target_address, protocol=leg.protocol, port=leg.port, sent=2, answered=2,
                outcome="answered", rtt_us=400,
            ),
            Listener(
                node=leg.target_node, pod=leg.target, protocol=leg.protocol, port=leg.port, found=True,
                addresses=("0.0.0.0",),
            ),
        ]  # fmt: skip
    if leg.encapsulation == "vxlan":
        facts += [
            RouteLookup(
                node=leg.target_node, destination=leg.target_address, source=leg.source_address, incoming=DEVICE,
                found=True, type="unicast", prefix=f"{leg.target_address}/32", device=leg.target_interface, table=254,
                protocol=3, scope=253, rp_filter=0,
            ),
            RouteLookup(
                node=leg.source_node, destination=leg.target_address, found=True, type="unicast",
                prefix=leg.target_block, next_hop=leg.target_tunnel_address, device=DEVICE, table=254, protocol=3,
                scope=0, onlink=True,
            ),
            Neighbor(
                node=leg.source_node, device=DEVICE, address=leg.target_tunnel_address, found=True,
                mac=leg.target_tunnel_mac, state="PERMANENT",
            ),
            RouteLookup(
                node=leg.source_node, destination=leg.target_address, source=leg.source_address,
                incoming=leg.source_interface, found=True, type="unicast", prefix=leg.target_block,
                next_hop=leg.target_tunnel_address, device=DEVICE, table=254, protocol=3, scope=0, onlink=True,
                rp_filter=0,
            ),
            Neighbor(node=leg.source_node, device="eth0", address=leg.target_node_address, found=False),
            FdbEntry(
                node=leg.source_node, device=DEVICE, mac=leg.target_tunnel_mac, found=True,
                peer=leg.target_node_address,
            ),
        ]  # fmt: skip
    return facts


def change(facts: list[Fact], kind: type[Fact], where: dict[str, Any], **fields: Any) -> list[Fact]:
    """The same facts with every `kind` that matches `where` changed. Fails when none does: a wound must wound."""
    hit = [f for f in facts if isinstance(f, kind) and all(getattr(f, k) == v for k, v in where.items())]
    assert hit, f"no {kind.__name__} with {where}"
    return [msgspec.structs.replace(f, **fields) if f in hit else f for f in facts]


def without(facts: list[Fact], *kinds: type[Fact], node: str = "") -> list[Fact]:
    """The same facts less those of some kinds (of one node)."""
    return [f for f in facts if not (isinstance(f, kinds) and (not node or getattr(f, "node", "") == node))]
