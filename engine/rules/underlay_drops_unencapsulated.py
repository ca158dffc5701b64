"""Without a tunnel the network sees pods' own addresses, and one that checks where packets come from drops them."""

from engine.between import ARRIVED, CARD, LEFT, swallowed
from engine.rule import NOT_FELIX, Text, cause, say, some, the
from engine.sender import ROUTE
from facts import Leg, Link, RouteLookup, Sighting

ROUTING = (12, 80)  # protocols of routes that BIRD and Felix write: to where somebody said that the way is


@cause(
    title="The network between the nodes swallows packets with pods' addresses",
    severity="breaks",
    remedy="Turn off the check of source and destination addresses for the nodes (AWS: source/dest check; OpenStack: "
    "allowed address pairs), or let the router know the pods' networks; or use a pool with VXLAN instead.",
    after=[
        "route_wrong_next_hop", "route_wrong_device", "route_shadowed", "foreign_route_to_pod", "routing_rule_diverts",
        "route_blackholed", "route_missing", "bgp_not_running", "bgp_peer_down",
    ],
    after_peer=["route_owner_conflict", "bgp_not_running", "bgp_peer_down"],  # the first is of the whole cluster
    at=the.leg.source_node,
    stage="underlay",
    heals_within_s=NOT_FELIX,
    leg=some(Leg, encapsulation="direct", crosses=True),
    route=ROUTE,
    left=LEFT,
    arrived=ARRIVED,
    card=CARD,
)  # fmt: skip
def underlay_drops_unencapsulated(
    leg: Leg, route: RouteLookup, left: Sighting, arrived: Sighting, card: Link
) -> Text | None:
    if left.device == leg.tunnel_device or not swallowed(leg, left, arrived, card):
        return None
    # What a default route or somebody's own leads to a router may be the router's to deliver, or may lack a route here:
    # both look the same, as they do where nobody knows who should write the routes.
    meant = route.next_hop == leg.target_node_address or route.protocol in ROUTING
    if not leg.route_owner or not meant:
        return None
    return say(
        "{node} sent {count} packets from {source} to {target} out by {device} without a tunnel, and none of them "
        "reached {peer}, while other packets from {node} did: something between the two nodes swallows them.",
        node=leg.source_node,
        count=left.seen,
        source=leg.source,
        target=leg.target,
        device=left.device,
        peer=leg.target_node,
    )
