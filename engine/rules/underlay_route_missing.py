"""What leaves a node for another, in a tunnel or not, needs the node's own route there; without one nothing leaves."""

from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import Leg, ProbeResult


@cause(
    title="The node has no route to the other node's address",
    severity="breaks",
    last_resort=True,  # a node may have a way for its own address only, by a rule of its own
    remedy="Read `ip route get` (`ip -6 route get`) of that address on this node, and give it its route back. Find "
    "what took it: DHCP, the network manager, a blackhole of somebody's; or, for IPv6, router advertisements, which a "
    "node that forwards accepts only with accept_ra=2.",
    after=["node_without_default_route", "node_address_stale", "uplink_ipv6_disabled"],
    after_peer=["node_address_stale", "node_address_wrong"],
    at=the.leg.source_node,
    stage="underlay",
    heals_within_s=NOT_FELIX,
    leg=some(Leg, crosses=True),
    tried=some(
        ProbeResult,
        node=the.leg.source_node,
        pod="",
        target_address=the.leg.target_node_address,
        protocol="icmp",
        size=0,
    ),
)
def underlay_route_missing(leg: Leg, tried: ProbeResult) -> Text | None:
    """No packet left, and no firewall said so: that would be an error, not an unreachable address."""
    if tried.sent or tried.outcome != "unreachable":
        return None
    return say(
        "{node} itself has no way to {address}, the address of {peer} ({detail}).",
        node=leg.source_node,
        address=tried.target_address,
        peer=leg.target_node,
        detail=tried.detail,
    )
