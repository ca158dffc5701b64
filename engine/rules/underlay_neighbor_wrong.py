"""Between two nodes of a network frames travel by the peer's MAC, tunnelled or not; a wrong one reaches nobody."""

from ipaddress import ip_address, ip_network

from engine.between import UNRESOLVED, unanswerable
from engine.rule import NOT_FELIX, Text, cause, say, some, the
from engine.sender import ROUTE
from facts import CalicoNode, Leg, Link, Neighbor, RouteLookup

TUNNELS = ("ipip", "wireguard")  # what they wrap goes to the peer's own address, whoever wrote the route into them
STATIC = {"PERMANENT", "NOARP"}  # what the network itself answers may be another MAC than the peer's: a cloud's gateway


@cause(
    title="The peer's node address leads to no MAC, or to a wrong one",
    severity="breaks",
    last_resort=True,
    after=["underlay_route_missing", "underlay_unreachable"],
    after_peer=["underlay_route_missing", "underlay_unreachable"],  # who has no way to an address does not answer it
    remedy="Delete a static entry (ip neigh del); where the address does not resolve, look at the network between the "
    "nodes (VLAN, switch port, ARP filtering) and at what filters ARP on the peer itself: arptables, `nft list tables "
    "arp`, arp_ignore and arp_filter; over IPv6 at the nodes' own firewalls, which must let neighbor discovery "
    "(ICMPv6) pass.",
    fix="replace_neighbor",
    at=the.leg.source_node,
    stage="underlay",
    heals_within_s=NOT_FELIX,
    leg=some(Leg, crosses=True),
    node=some(CalicoNode, name=the.leg.source_node, family=the.leg.family),
    # Seen by the peer's own probe: a node that is dead is another failure mode.
    peer=some(Link, node=the.leg.target_node, node_address=the.leg.target_node_address),
    own=some(Link, node=the.leg.source_node, node_address=the.leg.source_node_address),
    # By their uplinks: an IPIP device has that address for a neighbor, too.
    seen=some(Neighbor, node=the.leg.source_node, device=the.own.device, address=the.leg.target_node_address),
    back=some(Neighbor, node=the.leg.target_node, device=the.peer.device, address=the.leg.source_node_address),
    route=ROUTE,
)
def underlay_neighbor_wrong(
    leg: Leg, node: CalicoNode, peer: Link, own: Link, seen: Neighbor, back: Neighbor, route: RouteLookup
) -> Text | None:
    if not seen.found or not _neighbors(node.subnet, leg.target_node_address):
        return None
    straight = (route.next_hop, route.device) == (leg.target_node_address, own.device)
    if leg.route_by != "felix" and leg.encapsulation not in TUNNELS and not straight:  # a router may be the next hop
        return None
    if unanswerable(seen, back, own.mac):  # said of the other leg
        return None
    if not seen.mac and seen.state in UNRESOLVED:
        return say(
            "{node} asks by {device} who has {address}, the address of {peer}, and nobody answers ({state}); "
            "{peer_device} of {holder} has it.",
            node=seen.node,
            device=seen.device,
            address=seen.address,
            peer=leg.target_node,
            state=seen.state,
            peer_device=peer.device,
            holder=peer.node,
        )
    if not STATIC & set(seen.state.split("|")) or not seen.mac or not peer.mac or seen.mac == peer.mac:
        return None
    return say(
        "{node} has {mac} as a static entry ({state}) for {address} on {device}; "
        "{peer_device} of {peer} is {peer_mac}.",
        node=seen.node,
        mac=seen.mac,
        state=seen.state,
        address=seen.address,
        device=seen.device,
        peer_device=peer.device,
        peer=leg.target_node,
        peer_mac=peer.mac,
    )


def _neighbors(subnet: str, address: str) -> bool:
    """Between subnets a router's MAC counts, not the peer's."""
    return bool(subnet and address) and ip_address(address) in ip_network(subnet)
