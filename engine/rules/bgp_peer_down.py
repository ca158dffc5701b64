"""A BGP session that is down brings no routes; only one that brings the target's block matters here."""

from engine.prefix import covers_more
from engine.rule import NOT_FELIX, cause, say, some, the
from engine.sender import ROUTE
from facts import BgpPeer, Bird, Leg, RouteLookup, Text


@cause(
    title="A BGP session is down, and the route it should bring is missing",
    severity="breaks",
    last_resort=True,
    silent_while_well=True,
    remedy="See that TCP 179 is open between the two nodes both ways, and that BIRD runs on the other one "
    "(`calicoctl node status` there).",
    after=["bgp_not_running", "uplink_ipv6_disabled"],
    after_peer=["bgp_not_running", "uplink_ipv6_disabled"],
    at=the.peer.node,
    stage="source node",
    heals_within_s=NOT_FELIX,
    peer=some(BgpPeer),
    leg=some(Leg, source_node=the.peer.node, family=the.peer.family, route_by="bgp"),
    route=ROUTE,
    # Asked for, so that a BIRD that does not run there is told instead.
    other=some(Bird, node=the.leg.target_node, family=the.leg.family),
)
def bgp_peer_down(peer: BgpPeer, leg: Leg, route: RouteLookup, other: Bird) -> Text | None:
    """In a mesh each node speaks for itself. A reflector or a router speaks for many, so any of them may be the one."""
    if peer.session == "Established" or (peer.kind == "mesh" and peer.address != leg.target_node_address):
        return None
    missing = route.error == "ENETUNREACH" if not route.found else covers_more(route.prefix, leg.target_block)
    if not missing:
        return None
    return say(
        "{node} has no route for {block} of {target}, and its BGP session with {address} is {state}.",
        node=peer.node,
        block=leg.target_block or leg.target_address,
        target=leg.target_node,
        address=peer.address,
        state=" ".join(filter(None, (peer.session or peer.state, peer.info))),
    )
