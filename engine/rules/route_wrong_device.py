"""The block's route leads past the tunnel, or into it where none is needed: pod packets the network does not carry.

One entry, one name. What the kernel picks for the target on the source's node is
    shorter than the block's prefix                      route_missing
    the block's prefix, by another device than Felix's   this one
    by the right device, to the wrong hop                route_wrong_next_hop
    longer than the block's, and ends on this very node  route_shadowed
    longer than the block's, by any other device         foreign_route_to_pod
    refuses                                              route_blackholed
"""

from engine.prefix import covers_less, covers_more
from engine.rule import HEALS_ENTRY, Text, cause, say, some, the
from engine.sender import ROUTE
from facts import Leg, RouteLookup


@cause(
    title="The route to the target's block uses the wrong device",
    severity="breaks",
    remedy="Replace the route by Felix's own (or restart calico-node, which does it), and find who wrote this one: "
    "a routing daemon, a script, another network plugin.",
    fix="replace_route",
    other_fixes=["delete_foreign_route"],
    after=[
        "vxlan_device_missing",
        "vxlan_device_down",
        "vxlan_device_address_wrong",
        "ipip_device_missing",
        "ipip_device_down",
        "routing_rule_diverts",
        "vxlan_vni_wrong",
        "vxlan_port_wrong",
        "vxlan_local_address_wrong",
    ],
    after_peer=["tunnel_address_missing", "pool_disabled", "allocation_owner_mismatch", "allocation_missing"],
    at=the.leg.source_node,
    stage="source node",
    heals_within_s=HEALS_ENTRY,
    leg=some(Leg, route_by="felix"),
    route=ROUTE,
)
def route_wrong_device(leg: Leg, route: RouteLookup) -> Text | None:
    if not route.found or not route.device or covers_more(route.prefix, leg.target_block):
        return None
    if route.several:  # route_wrong_next_hop
        return None
    tunnelled = route.device == leg.tunnel_device
    if tunnelled == (leg.expected_device == leg.tunnel_device):
        return None
    if not tunnelled and covers_less(route.prefix, leg.target_block):
        return None
    return say(
        "{node} sends {prefix} via {next_hop} by {device}; expected via {expected} dev {expected_device}."
        if route.next_hop
        else "{node} sends {prefix} by {device}; expected via {expected} dev {expected_device}.",
        node=route.node,
        prefix=route.prefix,
        next_hop=route.next_hop,
        device=route.device,
        expected=leg.expected_next_hop
        or say(
            "the tunnel address of {node}" if leg.encapsulation == "vxlan" else "the address of {node}",
            node=leg.target_node,
        ),
        expected_device=leg.expected_device or say("the uplink"),
    )
