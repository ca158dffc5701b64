"""The question and its two legs: without them a rule would not know what should be true of what it sees."""

from __future__ import annotations

from facts.fact import Fact
from facts.firewall import Blame, Stop
from facts.policy import PolicyAllows, PolicyBypass, PolicyOpinion
from facts.reachability import LargeLoss, TrainLoss

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


TUNNEL_DEVICES = {
    ("vxlan", 4): "vxlan.calico",
    ("vxlan", 6): "vxlan-v6.calico",
    ("ipip", 4): "tunl0",
    ("wireguard", 4): "wireguard.cali",
    ("wireguard", 6): "wg-v6.cali",
}
TUNNEL_DEVICE = TUNNEL_DEVICES["vxlan", 4]
FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}


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
    family: int = 0  # 4 | 6 when one side was asked for by such an address; 0: every family both sides have
    service: str = ""  # namespace/name of the Service whose nodePort the port is, where the target is a node


class Flow(Fact, frozen=True, kw_only=True):
    """One pair the question comes down to: one for each address family both sides have, and for each of a Service's
    endpoints. Each has two legs."""

    name: str  # "shop/cart to shop/db over IPv4"; a person reads it
    source: str  # names of Endpoint facts
    target: str
    family: int  # 4 | 6
    source_address: str = ""  # of that family; "" for a node that sends: which of its own it takes depends on the way
    target_address: str = ""
    protocol: str = ""  # "tcp" | "udp" | "" when no port was asked
    port: int = 0  # where the target itself listens: a Service's target port
    service: str = ""  # namespace/name of the Service that leads to this target
    node_port: int = 0  # of the target, a node, where this one is asked and a Service's: nobody needs to listen there
    node_port_protocol: str = ""


class Side(Fact, frozen=True, kw_only=True):
    """One end of a flow with its node and its address's block: what a leg starts from or ends at."""

    flow: str
    role: str  # "source" | "target"
    family: int = 4
    kind: str = "pod"  # "pod" | "node" | "outside": whose network its address belongs to
    endpoint: str  # namespace/name
    address: str
    interface: str = ""  # host side of a pod's veth
    node: str = ""
    node_address: str = ""
    node_subnet: str = ""
    internal_address: str = ""  # status.addresses InternalIP of the node, where it is of this family
    tunnel_address: str = ""
    tunnel_mac: str = ""
    tunnel_block: str = ""  # CIDR of the block that holds the tunnel address
    ipip_address: str = ""  # these four as in CalicoNode
    ipip_block: str = ""
    wireguard_address: str = ""
    wireguard_block: str = ""
    block: str = ""  # that holds the address
    in_block: bool = False  # it is one of Calico's IPAM
    vxlan_mode: str = ""  # of the pool that holds the address; "" when no pool does
    ipip_mode: str = ""
    vni: int = 4096
    vxlan_port: int = 4789
    nat_outgoing: bool = False  # of that pool: what leaves for no pool's address does so under the node's own
    bpf: bool = False
    wireguard_key: str = ""  # of its node, where that is told to encrypt
    wireguard_device: str = ""  # as CalicoNode.wireguard_device
    wireguard_port: int = 0  # as CalicoNode.wireguard_port
    windows: bool = False
    foreign_dataplane: bool = False
    settings_read: bool = True  # as CalicoNode.settings_read
    pools_read: bool = True  # as Allocation.pools_read


class Leg(Fact, frozen=True, kw_only=True):
    """One direction of the flow with everything that should be true of it: the anchor of every rule about a path."""

    flow: str = ""  # name of its Flow, which its other leg shares
    family: int = 4
    direction: str  # "forward" | "reverse"
    encapsulation: str  # "local" | "vxlan" | "direct" | "ipip" | "wireguard" | "host" | "outside" | "unknown"
    source: str  # name of its Endpoint, namespace/name of a pod
    target: str
    source_kind: str = "pod"  # "pod" | "node" | "outside": is there a pod's interface at this end?
    target_kind: str = "pod"
    source_inside: bool = True  # it lives on a node of the cluster, where it can be looked at
    target_inside: bool = True
    entry_device: str = ""  # a pod's cali*, by which its packets come in; what a node sends itself, its tunnel device
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
    source_block: str = ""
    target_block: str  # CIDR of the block that holds the target's address; "" when no block does
    routed: bool = False  # a route of the source's node must lead to the target's node, and this version judges it
    steered: bool = False  # routed, or from pod to pod of one node: it is that node's routes that lead its packets on
    route_by: str = ""  # who writes it, when routed: "felix" one for each block; "bgp" any that leads there
    route_owner: str = ""  # who is told to write it: "felix" | "bird" | "both" | "nobody"; "" where that is not known
    # Why the encapsulation is "unknown": "ebpf" | "windows" | "driver" | "settings" (FelixConfiguration could not be
    # read) | "pools" (nor could they) | "pool" (none holds the address) | "pool_gone" (none any more, but a block of
    # Calico's IPAM) | "subnet" | "node".
    obstacle: str = ""
    expected_next_hop: str = ""  # of Felix's route; "" when unknown
    expected_device: str = ""  # the tunnel device; "" for the uplink, whose name only the node knows
    cross_subnet: bool = False  # the target's pool tunnels (VXLAN or IPIP) between subnets only
    source_node_subnet: str = ""
    source_wireguard_key: str = ""  # public, as the nodes' annotations announce them
    target_wireguard_key: str = ""
    target_wireguard_port: int = 0  # 0 for the usual
    tunnel_device: str = TUNNEL_DEVICE
    forwarding: str = FORWARDING[4]  # the switch of a whole node that lets packets of this family pass on
    vni: int = 4096
    vxlan_port: int = 4789
    port_asked: bool = False
    protocol: str = ""  # of the question
    port: int = 0
    calico_version: str = ""
    crosses: bool = False  # its packets, told by their addresses, cross the network between two nodes: they are watched
    node_port: int = 0  # of a forward leg, these two as in Flow
    node_port_protocol: str = ""
    target_internal_address: str = (
        ""  # InternalIP of the target's node, where it is of this family; else its node address
    )


class Room(Fact, frozen=True, kw_only=True):
    """How large a packet the source node of a leg can send on, as its devices say; a tunnel's header not counted."""

    flow: str
    direction: str
    node: str
    device: str  # the tunnel device, or the uplink where there is no tunnel
    size: int  # its MTU
    uplink: str
    uplink_mtu: int
    overhead: int = 0  # what the tunnel puts around each packet


class Arrival(Fact, frozen=True, kw_only=True):
    """By which device a leg's packets come in at its target node."""

    flow: str
    direction: str
    node: str
    device: str


class Lost(Fact, frozen=True, kw_only=True):
    """What proves that a leg's packets get lost behind its source node, where any route of that node's may be right.
    With neither, nothing does; elsewhere nothing needs to."""

    flow: str
    direction: str
    sent: int = 0  # packets that left for the target's node, of which that node saw none
    hop: str = ""  # or: the next hop that nobody answers for
    state: str = ""  # of its neighbor entry


# What follows from other facts: nobody sees it, and nobody need keep it.
DERIVED = (
    Arrival,
    Blame,
    Flow,
    LargeLoss,
    Leg,
    Lost,
    PolicyAllows,
    PolicyBypass,
    PolicyOpinion,
    Room,
    Side,
    Stop,
    TrainLoss,
)
