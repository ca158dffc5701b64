"""Without a tunnel the network sees pods' own addresses, and one that checks where packets come from drops them."""

from engine.between import swallowed
from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import Leg, Sighting


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
    left=some(
        Sighting,
        node=the.leg.source_node,
        way="out",
        source_address=the.leg.source_address,
        target_address=the.leg.target_address,
    ),
    arrived=some(
        Sighting,
        node=the.leg.target_node,
        way="in",
        source_address=the.leg.source_address,
        target_address=the.leg.target_address,
    ),
)  # fmt: skip
def underlay_drops_unencapsulated(leg: Leg, left: Sighting, arrived: Sighting) -> Text | None:
    # Where nobody knows who should write the routes, nobody knows that it was not their absence.
    if not leg.route_owner or left.device == leg.tunnel_device or not swallowed(leg, left, arrived):
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
