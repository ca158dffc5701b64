"""The healthy flow of tests.scene as other encapsulations carry it, out of calico.md 3.2 to 3.4.

No kernel here has their devices, so these facts stand in for what a probe would see.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.plan import expected_legs
from facts import (
    Allocation,
    BgpPeer,
    Bird,
    CalicoNode,
    CalicoSettings,
    Fact,
    FdbEntry,
    Leg,
    Link,
    LinkAddresses,
    Neighbor,
    PodInterface,
    Pool,
    ProbeResult,
    RouteLookup,
    Sysctl,
    WireguardDevice,
    WireguardPeer,
)
from tests.scene import DEVICE, NODES, change, healthy

BIRD, FELIX = 12, 80  # protocols of their routes
KEYS = {
    "node-a": "aWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWk=",
    "node-b": "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=",
}
PEERS = {"node-a": "node-b", "node-b": "node-a"}
SAID = "programClusterRoutes is {} in FelixConfiguration and {} in BGPConfiguration"
# Version, settings: who writes routes of IPIP pools, of pools without encapsulation.
BY_BIRD = {"version": "v3.32.1", "ipip_routes_by": "bird", "plain_routes_by": "bird"}
BY_BOTH_KINDS = {"version": "v3.33.0", "ipip_routes_by": "felix", "plain_routes_by": "bird"}


def ipip(settings: dict[str, str] = BY_BIRD, mode: str = "Always", apart: str = "") -> list[Fact]:
    """An IPIP pool. BIRD's routes and Felix's differ in their protocol only.

    apart: a node that takes itself to be alone in its subnet."""
    facts = _pool("Never", mode, settings)
    if apart:
        facts = change(facts, CalicoNode, {"name": apart}, subnet=f"{NODES[apart][0]}/32")
    if mode == "Always" or apart:  # else the nodes of one subnet need no tunnel
        # Packets that need no tunnel are asked about beside the others: there is no device of VXLAN.
        lacks: list[Fact] = [Link(node=node, device=DEVICE, found=False) for node in NODES]
        lacks += [msgspec.structs.replace(one, found=False, value="") for one in _switches(facts)]
        facts = _instead_of_vxlan(facts, "tunl0", "ipip", mtu=1480) + (lacks if apart else [])
    felix = settings["ipip_routes_by"] == "felix"
    facts = _routed(facts, FELIX if felix else BIRD)
    return facts if felix else [*facts, *_sessions()]


def plain(settings: dict[str, str] = BY_BIRD) -> list[Fact]:
    """A pool without encapsulation, all nodes in one subnet."""
    facts = _routed(_pool("Never", "Never", settings), BIRD)
    return [*facts, *_sessions()]


def wireguard(vxlan_mode: str = "Always") -> list[Fact]:
    """Encryption over whatever pool. Both nodes have keys, their routes are in a table of Felix's own."""
    facts = _pool(vxlan_mode, "Never", {"version": "v3.32.1"})
    for node, key in KEYS.items():
        facts = change(facts, CalicoNode, {"name": node}, wireguard=True, wireguard_key=key)
    facts = _instead_of_vxlan(facts, "wireguard.cali", "wireguard", mtu=1440)
    facts = change(facts, PodInterface, {}, mtu=1440, pod_mtu=1440)  # the smallest of all that is switched on
    facts = change(facts, ProbeResult, {"size": 1450}, size=1440)
    for node, key in KEYS.items():
        peer = PEERS[node]
        facts += [
            WireguardDevice(node=node, device="wireguard.cali", found=True, public_key=key, port=51820),
            WireguardPeer(
                node=node, device="wireguard.cali", public_key=KEYS[peer], found=True,
                endpoint=f"{NODES[peer][0]}:51820", handshake_s=40, allowed=(NODES[peer][3],),
            ),
        ]  # fmt: skip
    return _routed(facts, FELIX, table=1)


def _pool(vxlan_mode: str, ipip_mode: str, settings: dict[str, str]) -> list[Fact]:
    facts = change(healthy(), Allocation, {}, vxlan_mode=vxlan_mode, ipip_mode=ipip_mode)
    facts = change(facts, Pool, {}, vxlan_mode=vxlan_mode, ipip_mode=ipip_mode)
    return change(facts, CalicoSettings, {}, **settings)


def _instead_of_vxlan(facts: list[Fact], device: str, kind: str, *, mtu: int) -> list[Fact]:
    """Another tunnel device on both nodes: it has no neighbors and no forwarding database."""
    found: list[Fact] = []
    for fact in facts:
        match fact:
            case FdbEntry() | Neighbor(device="vxlan.calico"):
                continue
            case Link(device="vxlan.calico"):
                found.append(
                    Link(
                        node=fact.node, device=device, found=True, up=True, lower_up=True, operstate="UNKNOWN",
                        mtu=mtu, link_kind=kind,
                    )
                )  # fmt: skip
            case LinkAddresses(device="vxlan.calico"):
                found.append(msgspec.structs.replace(fact, device=device))
            case Sysctl(device="vxlan.calico"):
                name = fact.name.replace(DEVICE, device)
                found.append(msgspec.structs.replace(fact, device=device, name=name))
            case RouteLookup(incoming="vxlan.calico"):
                found.append(msgspec.structs.replace(fact, incoming=device))
            case _:
                found.append(fact)
    return found


def _routed(facts: list[Fact], protocol: int, *, table: int = 254) -> list[Fact]:
    """Each leg's way out as its encapsulation has it."""
    for leg in expected_legs(facts):
        way: dict[str, Any] = {"node": leg.source_node, "destination": leg.target_address}
        tunnelled = leg.encapsulation in ("ipip", "wireguard")
        fields = {
            "prefix": leg.target_block,
            "next_hop": "" if leg.encapsulation == "wireguard" else leg.target_node_address,
            "device": leg.tunnel_device if tunnelled else "eth0",
            "protocol": protocol,
            "table": table,
            "onlink": leg.encapsulation != "wireguard",
        }
        facts = change(facts, RouteLookup, {**way, "source": "", "incoming": ""}, **fields)
        facts = change(facts, RouteLookup, {**way, "incoming": leg.source_interface}, **fields)
    return facts


def _sessions() -> list[Fact]:
    """A full mesh, all of it up."""
    found: list[Fact] = []
    for node, peer in PEERS.items():
        found += [
            Bird(node=node, seen=True, running=True, detail="BIRD v0.3.3+birdv1.6.8 ready."),
            BgpPeer(
                node=node, name=f"Mesh_{NODES[peer][0].replace('.', '_')}", kind="mesh", address=NODES[peer][0],
                state="up", session="Established", since="16:01:02",
            ),
        ]  # fmt: skip
    return found


def _switches(facts: list[Fact]) -> list[Sysctl]:
    return [one for one in facts if isinstance(one, Sysctl) and one.device == DEVICE]


def leg_of(facts: list[Fact], direction: str = "forward") -> Leg:
    return next(leg for leg in expected_legs(facts) if leg.direction == direction)
