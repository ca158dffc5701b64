"""A healthy flow in hand-written facts; the tests wound it one fact at a time."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.plan import expected_legs
from engine.prefix import host
from facts import (
    AddressHolders,
    Allocation,
    CalicoNode,
    CalicoSettings,
    Endpoint,
    Fact,
    FdbEntry,
    FelixHealth,
    ForeignVxlans,
    Link,
    LinkAddresses,
    Listener,
    MacSharers,
    Neighbor,
    NeighborTable,
    NodeAddress,
    PodInterface,
    PodRoute,
    Pool,
    ProbeResult,
    Question,
    RouteLookup,
    RoutingRules,
    Sighting,
    Sysctl,
)
from facts.flow import TUNNEL_DEVICES

DEVICE = "vxlan.calico"
GATEWAY = "169.254.1.1"
NODES = {
    "node-a": ("172.30.0.11", "10.244.174.128", "66:07:02:c1:cc:60", "10.244.174.128/26"),
    "node-b": ("172.30.0.12", "10.244.218.64", "66:89:3a:22:7a:ac", "10.244.218.64/26"),
}
NODES6 = {
    "node-a": ("fd00:172:30::b", "fd00:10:244::8080", "66:d4:d5:51:3d:42", "fd00:10:244::8080/122"),
    "node-b": ("fd00:172:30::c", "fd00:10:244::a7c0", "66:35:be:36:cf:19", "fd00:10:244::a7c0/122"),
}
GATEWAY6 = "fe80::ecee:eeff:feee:eeee"
CART = ("shop/cart", "node-a", "10.244.174.132", "cali4c1aaaaaaaa")
DB = ("shop/db", "node-b", "10.244.218.68", "cali0d0bbbbbbbb")
WEB = ("shop/web", "node-a", "10.244.174.133", "cali77e0ccccccc")
ADDRESS6 = {"shop/cart": "fd00:10:244::8084", "shop/db": "fd00:10:244::a7c4", "shop/web": "fd00:10:244::8085"}


def healthy(
    source: tuple[str, str, str, str] = CART,
    target: tuple[str, str, str, str] = DB,
    *,
    port: int = 5432,
    families: tuple[int, ...] = (4,),
) -> list[Fact]:
    """Everything the API and both probes say about two pods that reach each other, by each of these families."""
    facts: list[Fact] = [
        Question(source=source[0], target=target[0], protocol="tcp" if port else "", port=port),
        CalicoSettings(version="v3.32.1", group="crd.projectcalico.org/v1"),
    ]
    pods = list(dict.fromkeys((source, target)))
    for name, node, address4, interface in pods:
        addresses = {family: address4 if family == 4 else ADDRESS6[name] for family in families}
        facts.append(
            Endpoint(
                name=name, kind="pod", node=node, address=addresses.get(4, ""), address6=addresses.get(6, ""),
                addresses=tuple(addresses.values()), phase="Running", ready=True, interface=interface,
            )
        )  # fmt: skip
        for family, address in addresses.items():
            facts.append(AddressHolders(address=address, pods=(name,)))
            facts.append(
                Allocation(
                    address=address, found=True, block=_sketch(node, family)[3], block_node=node,
                    pool=f"default-ipv{family}-ippool", vxlan_mode="Always", ipip_mode="Never", owner_kind="pod",
                    owner=name, node=node,
                )
            )  # fmt: skip
    for family in families:
        facts.append(POOLS[family])
        for node in dict.fromkeys(pod[1] for pod in pods):
            facts += _node(node, family)
    for leg in expected_legs(facts):
        facts += _seen_of(leg)
    return list(dict.fromkeys(facts))


POOLS = {
    4: Pool(name="default-ipv4-ippool", cidr="10.244.0.0/16", block_size=26, vxlan_mode="Always"),
    6: Pool(name="default-ipv6-ippool", cidr="fd00:10:244::/64", block_size=122, vxlan_mode="Always"),
}


def _sketch(node: str, family: int) -> tuple[str, str, str, str]:
    """Node address, tunnel address, tunnel MAC, block."""
    return (NODES if family == 4 else NODES6)[node]


def _node(name: str, family: int) -> list[Fact]:
    address, tunnel, mac, block = _sketch(name, family)
    device, v6 = TUNNEL_DEVICES["vxlan", family], family == 6
    return [
        CalicoNode(
            name=name, family=family, address=address, subnet="fd00:172:30::/64" if v6 else "172.30.0.0/24",
            internal_address=address, tunnel_address=tunnel, tunnel_mac=mac, vxlan_expected=True,
        ),
        Allocation(
            address=tunnel, found=True, block=block, block_node=name, pool=f"default-ipv{family}-ippool",
            vxlan_mode="Always", ipip_mode="Never", handle=f"vxlan-{'v6-' if v6 else ''}tunnel-addr-{name}",
            owner_kind="vxlanV6TunnelAddress" if v6 else "vxlanTunnelAddress", owner=name, node=name,
        ),
        Link(
            node=name, device=device, found=True, up=True, lower_up=True, operstate="UNKNOWN", mac=mac,
            mtu=1430 if v6 else 1450, link_kind="vxlan", vni=4096, vxlan_port=4789, vxlan_local=address, parent="eth0",
        ),
        LinkAddresses(node=name, device=device, family=family, found=True, addresses=(host(tunnel),)),
        Link(
            node=name, device="eth0", found=True, up=True, lower_up=True, operstate="UP", mac="02:00:00:00:00:01",
            mtu=1500, link_kind="veth", node_address=address,
        ),
        *(_switches6(name, device) if v6 else _switches(name, device)),
        FelixHealth(node=name, reachable=True, live=True, ready=True),
        NodeAddress(node=name, address=address, found=True, device="eth0"),
        ForeignVxlans(node=name),
        RoutingRules(node=name, family=family),
        NeighborTable(node=name, family=family, collectable=12, limit=1024, refused=0),
    ]  # fmt: skip


def _switches(node: str, device: str) -> list[Fact]:
    return [
        RouteLookup(
            node=node, destination=GATEWAY, found=True, type="unicast", prefix="0.0.0.0/0", next_hop="172.30.0.1",
            device="eth0", table=254, protocol=3, scope=0,
        ),
        Sysctl(node=node, name="net.ipv4.ip_forward", found=True, value="1"),
        _switch(node, device, "forwarding"),
        _switch(node, "all", "proxy_arp", "0"),
    ]  # fmt: skip


def _switches6(node: str, device: str) -> list[Fact]:
    return [
        _switch(node, "all", "forwarding", family=6),
        *(one for each in (device, "eth0") for one in _carries6(node, each)),
    ]


def _carries6(node: str, device: str) -> list[Fact]:
    """Of a device that IPv6 goes by: not disabled, and no exception from what the node's switch says."""
    forced = f"net.ipv6.conf.{device}.force_forwarding"
    return [
        Sysctl(node=node, name=forced, found=True, value="0", device=device, family=6, switch="forwarding"),
        _switch(node, device, "disable_ipv6", "0", family=6),
    ]


def _switch(node: str, device: str, switch: str, value: str = "1", *, family: int = 4) -> Sysctl:
    name = f"net.ipv{family}.conf.{device}.{switch}"
    return Sysctl(node=node, name=name, found=True, value=value, device=device, family=family, switch=switch)


def _gateway(leg: Any) -> list[Fact]:
    """What the pod's gateway needs on its node: proxy ARP and a route, or for IPv6 an address of the interface."""
    if leg.family == 6:
        addresses = (f"{GATEWAY6}/64",)
        return [
            LinkAddresses(
                node=leg.source_node, device=leg.source_interface, family=6, found=True, addresses=addresses
            ),
            *_carries6(leg.source_node, leg.source_interface),
        ]  # fmt: skip
    return [
        RouteLookup(
            node=leg.source_node, destination=GATEWAY, source=leg.source_address, incoming=leg.source_interface,
            found=True, type="unicast", prefix="0.0.0.0/0", next_hop="172.30.0.1", device="eth0", table=254, protocol=3,
            scope=0, rp_filter=0,
        ),
        _switch(leg.source_node, leg.source_interface, "forwarding"),
        _switch(leg.source_node, leg.source_interface, "proxy_arp"),
    ]  # fmt: skip


def _seen_of(leg: Any) -> list[Fact]:
    gateway, default, mtu, rp_filter = {4: (GATEWAY, "0.0.0.0/0", 1450, 0), 6: (GATEWAY6, "::/0", 1430, -1)}[leg.family]
    facts: list[Fact] = [
        RouteLookup(
            node=leg.target_node, destination=leg.target_address, found=True, type="unicast",
            prefix=host(leg.target_address), device=leg.target_interface, table=254, protocol=3, scope=253,
        ),
        Neighbor(node=leg.target_node, device=leg.target_interface, address=leg.target_address, found=False),
        PodInterface(
            node=leg.source_node, pod=leg.source, family=leg.family, interface=leg.source_interface, found=True,
            up=True, lower_up=True, mac="ee:ee:ee:ee:ee:ee", mtu=mtu, entered=True, pod_device="eth0", pod_up=True,
            pod_mtu=mtu, pod_addresses=(host(leg.source_address),), pod_default_next_hop=gateway,
        ),
        PodRoute(
            node=leg.source_node, pod=leg.source, destination=leg.target_address, found=True, prefix=default,
            next_hop=gateway, device="eth0",
        ),
        *_gateway(leg),
        ProbeResult(
            node=leg.source_node, pod=leg.source, source_address=leg.source_address, target_address=leg.target_address,
            protocol="icmp", sent=2, answered=2, outcome="answered", rtt_us=300,
        ),
        ProbeResult(
            node=leg.source_node, pod=leg.source, source_address=leg.source_address, target_address=leg.target_address,
            protocol="icmp", size=mtu, sent=2, answered=2, outcome="answered", rtt_us=310,
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
                node=leg.target_node, pod=leg.target, family=leg.family, protocol=leg.protocol, port=leg.port,
                found=True, addresses=("0.0.0.0" if leg.family == 4 else "::",),
            ),
        ]  # fmt: skip
    if leg.encapsulation == "local" and leg.steered:
        facts += [
            RouteLookup(
                node=leg.source_node, destination=leg.target_address, source=leg.source_address,
                incoming=leg.source_interface, found=True, type="unicast", prefix=host(leg.target_address),
                device=leg.target_interface, table=254, protocol=3, scope=253, rp_filter=rp_filter,
            ),
            Sighting(
                node=leg.source_node, way="out", source_address=leg.source_address, target_address=leg.target_address,
                seen=8, device=leg.target_interface,
            ),
        ]  # fmt: skip
    if leg.crosses:
        facts += [
            RouteLookup(
                node=leg.target_node, destination=leg.target_address, source=leg.source_address, incoming="eth0",
                found=True, type="unicast", prefix=f"{leg.target_address}/32", device=leg.target_interface, table=254,
                protocol=3, scope=253, rp_filter=0,
            ),
            Sighting(
                node=leg.source_node, way="out", source_address=leg.source_address, target_address=leg.target_address,
                seen=8, device="eth0", outer_target=leg.target_node_address if leg.encapsulation != "direct" else "",
                looked_ms=1300, answered_ms=1400,
            ),
            Sighting(
                node=leg.target_node, way="in", source_address=leg.source_address, target_address=leg.target_address,
                seen=12, device="eth0", outer_target=leg.target_node_address if leg.encapsulation != "direct" else "",
                heard=True, enclosed=True, looked_ms=1300, answered_ms=1400,
            ),
            ProbeResult(
                node=leg.source_node, pod="", source_address=leg.source_node_address,
                target_address=leg.target_node_address, protocol="icmp", sent=2, answered=2, outcome="answered",
                rtt_us=200,
            ),
        ]  # fmt: skip
    if leg.encapsulation == "vxlan":
        facts += [
            MacSharers(
                node=leg.source_node, device=leg.tunnel_device, mac=leg.target_tunnel_mac,
                addresses=(leg.target_tunnel_address,),
            ),
            RouteLookup(
                node=leg.target_node, destination=leg.target_address, source=leg.source_address,
                incoming=leg.tunnel_device, found=True, type="unicast", prefix=host(leg.target_address),
                device=leg.target_interface, table=254, protocol=3, scope=253, rp_filter=rp_filter,
            ),
            RouteLookup(
                node=leg.source_node, destination=leg.target_address, found=True, type="unicast",
                prefix=leg.target_block, next_hop=leg.target_tunnel_address, device=leg.tunnel_device, table=254,
                protocol=3, scope=0, onlink=True,
            ),
            Neighbor(
                node=leg.source_node, device=leg.tunnel_device, address=leg.target_tunnel_address, found=True,
                mac=leg.target_tunnel_mac, state="PERMANENT",
            ),
            RouteLookup(
                node=leg.source_node, destination=leg.target_address, source=leg.source_address,
                incoming=leg.source_interface, found=True, type="unicast", prefix=leg.target_block,
                next_hop=leg.target_tunnel_address, device=leg.tunnel_device, table=254, protocol=3, scope=0,
                onlink=True, rp_filter=rp_filter,
            ),
            Neighbor(node=leg.source_node, device="eth0", address=leg.target_node_address, found=False),
            FdbEntry(
                node=leg.source_node, device=leg.tunnel_device, mac=leg.target_tunnel_mac, found=True,
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
