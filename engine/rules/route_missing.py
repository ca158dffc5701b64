"""Without a route for the block that holds the target, packets leave by the default route and are lost."""

from engine.prefix import covers_more, is_default
from engine.rule import HEALS_ENTRY, cause, some, the
from facts import Leg, RouteLookup


@cause(
    title="No route to the target's block",
    severity="breaks",
    remedy="If Felix on this node is alive it will come back by itself; if not, restart its calico-node pod.",
    after=[
        "vxlan_device_missing",
        "vxlan_device_down",
        "vxlan_device_address_wrong",
        "vxlan_vni_wrong",
        "vxlan_port_wrong",
        "vxlan_local_address_wrong",
        "routing_rule_diverts",
    ],
    after_peer=["tunnel_address_missing", "pool_disabled", "allocation_missing"],
    at=the.leg.source_node,
    stage="source node",
    heals_within_s=HEALS_ENTRY,
    leg=some(Leg, route_by="felix"),
    route=some(RouteLookup, node=the.leg.source_node, destination=the.leg.target_address, source="", incoming=""),
)
def route_missing(leg: Leg, route: RouteLookup) -> str | None:
    block = leg.target_block or leg.target_address
    if not route.found:
        if route.error != "ENETUNREACH":
            return None
        return f"{route.node} has no route to {leg.target_address} at all; expected {block} via {_expected(leg)}."
    if route.device == leg.expected_device or not covers_more(route.prefix, leg.target_block):
        return None
    name = "its default route" if is_default(route.prefix) else f"the route {route.prefix}"
    return (
        f"{route.node} has no route for {block}: packets to {leg.target_address} take {name} by {route.device}; "
        f"expected via {_expected(leg)}."
    )


def _expected(leg: Leg) -> str:
    next_hop = leg.expected_next_hop or f"the tunnel address of {leg.target_node}"
    return f"{next_hop} dev {leg.expected_device}" if leg.expected_device else f"{next_hop} by the uplink"
