"""Two nodes that live and do not reach each other at all, by tunnel, ping or otherwise: what lies between them."""

from engine.between import ARRIVED, LEFT, UNRESOLVED, dead, kept_wrong, unanswerable
from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import Leg, Link, Neighbor, ProbeResult, Sighting


@cause(
    title="Nothing that one node sends reaches the other",
    severity="breaks",
    remedy="Look at what is between the nodes: cable, switch port, VLAN, security group, routes between their subnets. "
    "Both nodes answered calico-why, so both machines live.",
    after=["node_address_stale", "node_address_wrong", "underlay_neighbor_mistaken"],
    # A node without a way back to the asker drops even its ARP questions where filters are on.
    after_peer=["node_address_stale", "node_address_wrong", "underlay_route_missing"],
    at=the.leg.source_node,
    stage="underlay",
    heals_within_s=NOT_FELIX,
    leg=some(Leg, crosses=True),
    left=LEFT,
    arrived=ARRIVED,
    answer_left=some(
        Sighting,
        node=the.leg.target_node,
        way="out",
        source_address=the.leg.target_address,
        target_address=the.leg.source_address,
    ),
    answer_arrived=some(
        Sighting,
        node=the.leg.source_node,
        way="in",
        source_address=the.leg.target_address,
        target_address=the.leg.source_address,
    ),
    ping=some(
        ProbeResult, node=the.leg.source_node, pod="", target_address=the.leg.target_node_address, protocol="icmp"
    ),
    source=some(Link, node=the.leg.source_node, node_address=the.leg.source_node_address),
    target=some(Link, node=the.leg.target_node, node_address=the.leg.target_node_address),
    # By their uplinks: an IPIP device has that address for a neighbor, too.
    to_target=some(Neighbor, node=the.leg.source_node, device=the.source.device, address=the.leg.target_node_address),
    to_source=some(Neighbor, node=the.leg.target_node, device=the.target.device, address=the.leg.source_node_address),
)
def underlay_unreachable(
    leg: Leg,
    left: Sighting,
    arrived: Sighting,
    answer_left: Sighting,
    answer_arrived: Sighting,
    ping: ProbeResult,
    source: Link,
    target: Link,
    to_target: Neighbor,
    to_source: Neighbor,
) -> Text | None:
    if ping.answered or not ping.sent:  # what the node's own kernel does not let out is not lost between nodes
        return None
    there = (
        dead(left, arrived, answer_arrived, target)
        and _sends(left, to_target, target.mac)
        and not unanswerable(to_target, to_source, source.mac)
    )
    back = (
        dead(answer_left, answer_arrived, arrived, source)
        and _sends(answer_left, to_source, source.mac)
        and not unanswerable(to_source, to_target, target.mac)
    )
    if leg.family == 6 and not ((there and left.seen > 0) or (back and answer_left.seen > 0)):
        return None  # by which nodes learn who has an address is a packet there, and a firewall of theirs may drop it
    # Who does not get the peer's answers never learns its MAC, and holds back what might well arrive.
    unheard = there and back and (left.seen == 0) != (answer_left.seen == 0)
    if unheard:
        there = left.seen > 0
    if there and back and not unheard:
        if leg.direction == "reverse":  # said of the other leg
            return None
        return say(
            "neither {node} nor {peer} receives anything from the other ({node}: {address} is {state}).",
            node=leg.source_node,
            peer=leg.target_node,
            address=leg.target_node_address,
            state=_state(to_target),
        )
    if there and unheard:
        return say(
            "nothing that {node} sends to {address} reaches {peer}, which so does not learn where {node} is: whether "
            "its packets would reach {node} is not known.",
            node=leg.source_node,
            address=leg.target_node_address,
            peer=leg.target_node,
        )
    # Who reaches the node has learned its MAC from it: what is lost is its question for the peer's own alone.
    if there and left.seen > 0:
        return say(
            "nothing that {node} sends to {address} reaches {peer}, though {peer} reaches {node}.",
            node=leg.source_node,
            address=leg.target_node_address,
            peer=leg.target_node,
        )
    return None


def _sends(left: Sighting, to_peer: Neighbor, mac: str) -> bool:
    """Did it send, or only not know whom to?"""
    waits = not to_peer.mac and to_peer.state in UNRESOLVED
    return (left.seen > 0 or waits) and not kept_wrong(to_peer, mac)


def _state(to_peer: Neighbor) -> str:
    if not to_peer.found:
        return say("behind a router")
    return say("{mac}, {state}", mac=to_peer.mac, state=to_peer.state) if to_peer.mac else to_peer.state
