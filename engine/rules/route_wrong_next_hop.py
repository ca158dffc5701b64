"""The route to the target's block leads to a node that does not have it: a detour at best."""

from engine.prefix import covers_less, covers_more
from engine.rule import HEALS_ENTRY, Text, cause, say, some, the
from facts import Leg, RouteLookup

FELIX = 80  # the protocol of its routes by the uplink


@cause(
    title="The route to the target leads to the wrong node",
    severity="breaks",
    remedy="Replace the route by one via the right tunnel address; Felix does the same at its next refresh.",
    fix="replace_route",
    other_fixes=["delete_foreign_route"],
    after=[
        "vxlan_device_missing",
        "vxlan_device_down",
        "ipip_device_missing",
        "ipip_device_down",
        "route_shadowed",
        "routing_rule_diverts",
    ],
    after_peer=[
        "tunnel_address_missing",
        "tunnel_address_not_owned",
        "pool_disabled",
        "allocation_owner_mismatch",
        "allocation_missing",
    ],
    at=the.leg.source_node,
    stage="source node",
    heals_within_s=HEALS_ENTRY,
    leg=some(Leg, route_by="felix"),
    route=some(
        RouteLookup,
        node=the.leg.source_node,
        destination=the.leg.target_address,
        source="",
        incoming="",
        found=True,
    ),
)
def route_wrong_next_hop(leg: Leg, route: RouteLookup) -> Text | None:
    if route.several:
        return _by_several_ways(leg, route)
    tunnelled = route.device == leg.tunnel_device
    if tunnelled != (leg.expected_device == leg.tunnel_device) or covers_more(route.prefix, leg.target_block):
        return None
    if not tunnelled and route.protocol != FELIX and covers_less(route.prefix, leg.target_block):
        return None  # it is not Felix's: foreign_route_to_pod
    # A tunnel address in a block that is not its node's has a route of its own, by the link itself.
    if not leg.expected_next_hop or (route.next_hop or route.destination) == leg.expected_next_hop:
        return None
    return say(
        "{node} sends {prefix} via {next_hop} dev {device}; {pod} is on {peer}, whose tunnel address is {expected}."
        if leg.encapsulation == "vxlan"
        else "{node} sends {prefix} via {next_hop} dev {device}; {pod} is on {peer}, whose address is {expected}.",
        node=route.node,
        prefix=route.prefix,
        next_hop=route.next_hop or say("the link itself"),
        device=route.device,
        pod=leg.target,
        peer=leg.target_node,
        expected=leg.expected_next_hop,
    )


def _by_several_ways(leg: Leg, route: RouteLookup) -> Text | None:
    """Which of them a packet takes its addresses decide, or its ports; Felix writes one."""
    if not leg.expected_next_hop or covers_more(route.prefix, leg.target_block):
        return None
    wrong = [one for one in route.several if not _right(leg, one)]
    if not wrong:
        return None
    return say(
        "{node} sends {prefix} by several ways at once ({ways}), and not all of them lead to {peer}, which is "
        "{expected}: some packets take a wrong one.",
        node=route.node,
        prefix=route.prefix,
        ways=", ".join(route.several),
        peer=leg.target_node,
        expected=leg.expected_next_hop,
    )


def _right(leg: Leg, way: str) -> bool:
    words = way.split()
    tunnelled = words[-1] == leg.tunnel_device
    return words[0] == leg.expected_next_hop and tunnelled == (leg.expected_device == leg.tunnel_device)
