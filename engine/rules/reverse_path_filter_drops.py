"""A strict reverse path filter drops what comes out of the tunnel when the way back does not lead into it."""

from engine.rule import HEALS_NEVER, Text, cause, say, some, the
from facts import Leg, RouteLookup

STRICT = 1


@cause(
    title="The reverse path filter drops packets from the tunnel",
    severity="breaks",
    remedy="Make the way back the same as the way here (look at ip rule and ip route on this node), or set rp_filter "
    "to 2, which asks only that there is one.",
    after=[
        "vxlan_device_missing", "vxlan_device_down", "vxlan_device_address_wrong", "route_missing",
        "route_wrong_device", "route_shadowed", "foreign_route_to_pod", "route_blackholed", "routing_rule_diverts",
    ],
    after_peer=["tunnel_address_missing", "cross_subnet_asymmetric"],
    at=the.leg.target_node,
    stage="target tunnel",
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, encapsulation="vxlan", family=4),
    arriving=some(
        RouteLookup,
        node=the.leg.target_node,
        destination=the.leg.target_address,
        source=the.leg.source_address,
        incoming=the.leg.tunnel_device,
    ),
    delivered=some(
        RouteLookup, node=the.leg.target_node, destination=the.leg.target_address, source="", incoming=""
    ),
)  # fmt: skip
def reverse_path_filter_drops(leg: Leg, arriving: RouteLookup, delivered: RouteLookup) -> Text | None:
    refused = not arriving.found and arriving.error in ("EINVAL", "EXDEV")
    # A blackhole is refused with the same word, and then also for the node's own packets.
    if not refused or arriving.rp_filter != STRICT or not delivered.found:
        return None
    return say(
        "{node} refuses packets from {address} that come in by {device} ({error}): rp_filter is strict there, "
        "and its way back to {address} is another.",
        node=arriving.node,
        address=arriving.source,
        device=arriving.incoming,
        error=arriving.error,
    )
