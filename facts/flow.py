"""The question and its two legs: without them a rule would not know what should be true of what it sees."""

from __future__ import annotations

from facts.fact import Fact

# Where a packet of a leg can be, in order. A cause names the first bad one; the one before it is the last good one.
STAGES = (
    "source pod",
    "source veth",
    "source node",
    "source tunnel",
    "underlay",
    "target tunnel",
    "target node",
    "target veth",
    "target pod",
)


TUNNEL_DEVICE = "vxlan.calico"


def mirrored(stage: str) -> str:
    """The same place counted from the other end: "source tunnel" of one leg is "target tunnel" of the other."""
    end, _, place = stage.partition(" ")
    return f"{'target' if end == 'source' else 'source'} {place}" if place else stage


class Question(Fact, frozen=True, kw_only=True):
    """`why SOURCE TARGET [PORT/PROTOCOL]`, both sides resolved to the names of their Endpoint facts."""

    source: str
    target: str
    protocol: str = ""  # "tcp" | "udp" | "" when no port was asked
    port: int = 0


class Side(Fact, frozen=True, kw_only=True):
    """One end of the flow with its node and its address's block: what a leg starts from or ends at."""

    role: str  # "source" | "target"
    endpoint: str  # namespace/name
    address: str
    interface: str
    node: str
    node_address: str
    node_subnet: str
    tunnel_address: str
    tunnel_mac: str
    block: str
    vxlan_mode: str  # of the pool that holds the address; "" when no pool does
    ipip_mode: str
    vni: int
    vxlan_port: int
    bpf: bool = False
    wireguard: bool = False


class Leg(Fact, frozen=True, kw_only=True):
    """One direction of the flow with everything that should be true of it: the anchor of every rule about a path."""

    direction: str  # "forward" | "reverse"
    encapsulation: str  # "local" | "vxlan" | "direct" | "ipip" | "wireguard" | "unknown"
    source: str  # pod name namespace/name
    target: str
    source_address: str
    target_address: str
    source_interface: str  # cali* on the source node
    target_interface: str
    source_node: str
    target_node: str
    source_node_address: str
    target_node_address: str
    source_tunnel_address: str  # "" when the annotation is missing
    target_tunnel_address: str
    source_tunnel_mac: str  # as it should be
    target_tunnel_mac: str
    target_block: str  # CIDR of the block that holds the target's address; "" when no block does
    routed: bool = False  # a route of the source's node must lead to the target's node, and this version judges it
    route_by: str = ""  # who writes it, when routed: "felix" one for each block; "bgp" any that leads there
    expected_next_hop: str = ""  # of Felix's route; "" when unknown
    expected_device: str = ""  # the tunnel device; "" for the uplink, whose name only the node knows
    cross_subnet: bool = False  # the target's pool uses VXLAN between subnets only
    source_node_subnet: str = ""
    tunnel_device: str = TUNNEL_DEVICE
    vni: int = 4096
    vxlan_port: int = 4789
    port_asked: bool = False
    protocol: str = ""  # of the question
    port: int = 0
    calico_version: str = ""
