"""A strict reverse path filter drops what comes in by one device when the way back leads out by another."""

from engine.between import ARRIVED
from engine.rule import HEALS_NEVER, Finding, Text, cause, say, some, the
from facts import Arrival, Leg, RouteLookup, Sighting

STRICT = 1


@cause(
    title="The reverse path filter drops packets from the other node",
    severity="breaks",
    remedy="Make the way back the same as the way here (look at ip rule and ip route on this node), or set rp_filter "
    "to 2, which asks only that there is one.",
    after=[
        "vxlan_device_missing", "vxlan_device_down", "vxlan_device_address_wrong", "route_missing",
        "route_wrong_device", "route_shadowed", "foreign_route_to_pod", "route_blackholed", "routing_rule_diverts",
        "cross_subnet_asymmetric",
    ],
    after_peer=["tunnel_address_missing", "cross_subnet_asymmetric"],
    fix="set_sysctl",
    at=the.leg.target_node,
    stage="target tunnel",
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, crosses=True, family=4),
    arrival=some(Arrival, flow=the.leg.flow, direction=the.leg.direction, node=the.leg.target_node),
    arriving=some(
        RouteLookup,
        node=the.leg.target_node,
        destination=the.leg.target_address,
        source=the.leg.source_address,
        incoming=the.arrival.device,
    ),
    seen=ARRIVED,
    delivered=some(
        RouteLookup, node=the.leg.target_node, destination=the.leg.target_address, source="", incoming=""
    ),
)  # fmt: skip
def reverse_path_filter_drops(
    leg: Leg, arrival: Arrival, arriving: RouteLookup, seen: Sighting, delivered: RouteLookup
) -> Text | Finding | None:
    if leg.encapsulation == "wireguard":  # a mark tells the kernel there what this lookup does not know
        return None
    refused = not arriving.found and arriving.error in ("EINVAL", "EXDEV")
    # A blackhole is refused with the same word, and then also for the node's own packets.
    if not refused or arriving.rp_filter != STRICT or not delivered.found:
        return None
    without_tunnel = not leg.expected_device
    if without_tunnel and (seen.seen <= 0 or seen.device != arrival.device):
        return None  # a node with several networks: they come in elsewhere
    if leg.source_kind == "node" and seen.seen <= 0:
        return None  # a node answers as it was asked, which may have been under the other node's own address
    text = say(
        "{node} refuses packets from {address} that come in by {device} ({error}): rp_filter is strict there, "
        "and its way back to {address} is another.",
        node=arriving.node,
        address=arriving.source,
        device=arriving.incoming,
        error=arriving.error,
    )
    return Finding(text, stage="target node") if without_tunnel else text
