"""What one node sends another goes to a router first, or out by a device of its choice; where nobody answers there,
nothing leaves."""

from __future__ import annotations

from engine.between import UNRESOLVED
from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import Leg, PeerGateway

TUNNELS = ("vxlan", "ipip", "wireguard")  # what they wrap goes to the peer's own address


@cause(
    title="Nobody answers for the next hop to the other node",
    severity="breaks",
    last_resort=True,
    silent_while_well=True,
    remedy="Read `ip route get` of the other node's address on this node: are device and next hop the right ones? Then "
    "see that the router is up and in this node's network (VLAN, switch port, its own failover); else give the node "
    "its right route back and find what wrote this one (DHCP, the network manager, a second network card).",
    after=["node_address_stale", "uplink_ipv6_disabled"],
    at=the.gateway.node,
    stage="underlay",
    heals_within_s=NOT_FELIX,
    gateway=some(PeerGateway),
    leg=some(Leg, crosses=True, source_node=the.gateway.node, target_node_address=the.gateway.peer),
)
def underlay_gateway_silent(gateway: PeerGateway, leg: Leg) -> Text | None:
    if gateway.mac or gateway.state not in UNRESOLVED:
        return None
    if leg.encapsulation not in TUNNELS and leg.route_by != "felix":  # any other router may be the next hop of its way
        return None
    return say(
        "{node} sends what is for {peer} ({address}) out by {device}, and nobody answers for that address there "
        "({state})."
        if gateway.address == gateway.peer
        else "{node} sends what is for {peer} ({address}) to {gateway} by {device}, and nobody answers for {gateway} "
        "there ({state}).",
        node=gateway.node,
        peer=leg.target_node,
        address=gateway.peer,
        gateway=gateway.address,
        device=gateway.device,
        state=gateway.state,
    )
