"""A blackhole, unreachable, prohibit or throw route swallows the flow on the sender's own node."""

from engine.lending import swallowed_by_lender
from engine.prefix import covers_less, covers_more
from engine.rule import HEALS_ENTRY, HEALS_NEVER, Finding, Text, cause, say, some, the
from engine.sender import ROUTE
from facts import Allocation, Leg, RouteLookup

SWALLOWS = {"blackhole", "unreachable", "prohibit", "throw"}
FELIX = 80  # the protocol of its own routes; it removes those it does not want


@cause(
    title="A route on the sender's node swallows packets to the target",
    severity="breaks",
    remedy="Find who added it and delete it (ip route del); Felix removes only entries of its own protocol (80).",
    fix="delete_foreign_route",
    after=[
        "vxlan_device_missing",
        "vxlan_device_down",
        "ipip_device_missing",
        "ipip_device_down",
        "wireguard_device_missing",
        "routing_rule_diverts",
        "block_affinity_conflict",
    ],
    after_peer=["tunnel_address_missing", "pool_disabled", "allocation_missing"],
    at=the.leg.source_node,
    stage="source node",
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, routed=True),
    route=ROUTE,
    held=some(Allocation, address=the.leg.target_address),
)
def route_blackholed(leg: Leg, route: RouteLookup, held: Allocation) -> Text | Finding | None:
    if route.type not in SWALLOWS or swallowed_by_lender(leg, held, route):
        return None
    if route.type == "throw" and covers_more(route.prefix, leg.target_block):
        return None  # the block's own route would win over it: route_missing
    text = say(
        "{node} answers packets to {address} with {type} {prefix}."
        if route.prefix
        else "{node} answers packets to {address} with a {type} route.",
        node=route.node,
        address=leg.target_address,
        type=route.type,
        prefix=route.prefix,
    )
    # One for the whole block may be meant: Felix puts it on the node that it takes for the block's owner.
    unwanted = route.protocol == FELIX and covers_less(route.prefix, leg.target_block)
    return Finding(text, heals_within_s=HEALS_ENTRY) if unwanted else text
