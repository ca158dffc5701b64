"""Without a route for the block that holds the target, packets leave by the default route and are lost."""

from engine.lending import swallowed_by_lender
from engine.prefix import covers_more, is_default
from engine.rule import HEALS_ENTRY, Text, cause, say, some, the
from engine.sender import ROUTE
from facts import Allocation, Leg, RouteLookup


@cause(
    title="No route to the target's block",
    severity="breaks",
    remedy="If Felix on this node is alive it will come back by itself; if not, restart its calico-node pod.",
    fix="replace_route",
    after=[
        "ipv6_disabled",
        "uplink_ipv6_disabled",
        "vxlan_device_missing",
        "vxlan_device_down",
        "vxlan_device_address_wrong",
        "tunnel_address_not_owned",
        "vxlan_vni_wrong",
        "vxlan_port_wrong",
        "vxlan_local_address_wrong",
        "ipip_device_missing",
        "ipip_device_down",
        "routing_rule_diverts",
    ],
    after_peer=["tunnel_address_missing", "pool_disabled", "allocation_missing", "node_address_missing"],
    at=the.leg.source_node,
    stage="source node",
    heals_within_s=HEALS_ENTRY,
    leg=some(Leg, route_by="felix"),
    route=ROUTE,
    held=some(Allocation, address=the.leg.target_address),
)
def route_missing(leg: Leg, route: RouteLookup, held: Allocation) -> Text | None:
    block = leg.target_block or leg.target_address
    if swallowed_by_lender(leg, held, route):
        return say(
            "{node} has no route for {address}, which {peer} borrowed of its block {block}; expected via {expected}.",
            node=route.node,
            address=leg.target_address,
            peer=leg.target_node,
            block=block,
            expected=_expected(leg),
        )
    if not route.found:
        thrown = route.type == "throw" and not covers_more(route.prefix, leg.target_block)  # route_blackholed
        if route.error != "ENETUNREACH" or thrown or route.ended_by:
            return None
        return say(
            "{node} has no route to {address} at all; expected {block} via {expected}.",
            node=route.node,
            address=leg.target_address,
            block=block,
            expected=_expected(leg),
        )
    if route.device == leg.expected_device or not covers_more(route.prefix, leg.target_block):
        return None
    default = is_default(route.prefix)
    return say(
        "{node} has no route for {block}: packets to {address} take {taken} by {device}; expected via {expected}.",
        node=route.node,
        block=block,
        address=leg.target_address,
        taken=say("its default route") if default else say("the route {prefix}", prefix=route.prefix),
        device=route.device,
        expected=_expected(leg),
    )


def _expected(leg: Leg) -> Text:
    return say(
        "{next_hop} dev {device}" if leg.expected_device else "{next_hop} by the uplink",
        next_hop=leg.expected_next_hop or _of_peer(leg),
        device=leg.expected_device,
    )


def _of_peer(leg: Leg) -> Text:
    if leg.encapsulation == "vxlan":
        return say("the tunnel address of {node}", node=leg.target_node)
    return say("the address of {node}", node=leg.target_node)
