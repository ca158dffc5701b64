"""A blackhole, unreachable or prohibit route swallows the flow on the sender's own node."""

from engine.rule import HEALS_NEVER, cause, some, the
from facts import Leg, RouteLookup

SWALLOWS = {"blackhole", "unreachable", "prohibit"}


@cause(
    title="A route on the sender's node swallows packets to the target",
    severity="breaks",
    remedy="Find who added it and delete it (ip route del); Felix removes only entries of its own protocol (80).",
    after=["vxlan_device_missing", "vxlan_device_down", "routing_rule_diverts"],
    after_peer=["tunnel_address_missing", "pool_disabled"],
    at=the.leg.source_node,
    stage="source node",
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, routed=True),
    route=some(RouteLookup, node=the.leg.source_node, destination=the.leg.target_address, source="", incoming=""),
)
def route_blackholed(leg: Leg, route: RouteLookup) -> str | None:
    if route.type not in SWALLOWS:
        return None
    where = f"{route.type} {route.prefix}" if route.prefix else f"a {route.type} route"
    return f"{route.node} answers packets to {leg.target_address} with {where}."
