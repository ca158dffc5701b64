"""The route to the target's block leads to a node that does not have it: a detour at best."""

from engine.rule import HEALS_ENTRY, cause, some, the
from facts import Leg, RouteLookup


@cause(
    title="The route to the target leads to the wrong node",
    severity="breaks",
    remedy="Replace the route by one via the right tunnel address; Felix does the same at its next refresh.",
    after=["vxlan_device_missing", "vxlan_device_down"],
    after_peer=["tunnel_address_missing", "tunnel_address_not_owned"],
    at=the.leg.source_node,
    stage="source node",
    heals_within_s=HEALS_ENTRY,
    leg=some(Leg, encapsulation="vxlan"),
    route=some(
        RouteLookup,
        node=the.leg.source_node,
        destination=the.leg.target_address,
        source="",
        incoming="",
        device=the.leg.tunnel_device,
        found=True,
    ),
)
def route_wrong_next_hop(leg: Leg, route: RouteLookup) -> str | None:
    if not leg.target_tunnel_address or route.next_hop == leg.target_tunnel_address:
        return None
    return (
        f"{route.node} sends {route.prefix} via {route.next_hop or 'the link itself'}; {leg.target} is on "
        f"{leg.target_node}, whose tunnel address is {leg.target_tunnel_address}."
    )
