"""What the kernel learned can be another machine's MAC: all for the peer goes there until the entry is checked."""

from engine.between import ARRIVED, LEFT, dead, sent, swallowed
from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import Leg, Link, Neighbor, Sighting

LEARNED = ("REACHABLE", "STALE", "DELAY", "PROBE")  # what somebody wrote: underlay_neighbor_wrong


@cause(
    title="The node has learned another machine's MAC for the peer",
    severity="breaks",
    remedy="Flush the entry (ip neigh del): the kernel asks anew with the next packet, as it would by itself within a "
    "minute. Where the wrong MAC comes back, somebody else answers for this address: find who has it (arping -D, the "
    "switch's table) and take the address away there.",
    fix="flush_neighbor",
    after=["node_address_stale", "node_address_wrong"],
    after_peer=["node_address_stale", "node_address_wrong"],
    at=the.leg.source_node,
    stage="underlay",
    heals_within_s=NOT_FELIX,
    leg=some(Leg, crosses=True),
    left=LEFT,
    arrived=ARRIVED,
    answers=some(
        Sighting,
        node=the.leg.source_node,
        way="in",
        source_address=the.leg.target_address,
        target_address=the.leg.source_address,
    ),
    source=some(Link, node=the.leg.source_node, node_address=the.leg.source_node_address),
    target=some(Link, node=the.leg.target_node, node_address=the.leg.target_node_address, found=True),
    seen=some(Neighbor, node=the.leg.source_node, device=the.source.device, address=the.leg.target_node_address),
    back=some(Neighbor, node=the.leg.target_node, device=the.target.device, address=the.leg.source_node_address),
)
def underlay_neighbor_mistaken(
    leg: Leg,
    left: Sighting,
    arrived: Sighting,
    answers: Sighting,
    source: Link,
    target: Link,
    seen: Neighbor,
    back: Neighbor,
) -> Text | None:
    if seen.state not in LEARNED or not seen.mac or not target.mac or seen.mac == target.mac:
        return None
    # A network that answers for its machines, as a cloud's does, answers for both.
    if not source.mac or back.mac != source.mac or not sent(leg, left):
        return None
    if not swallowed(leg, left, arrived, target) and not dead(left, arrived, answers, target):
        return None
    return say(
        "{node} has learned {mac} ({state}) for {address} on {device}; {peer_device} of {peer} is {peer_mac}, and of "
        "{count} packets that left none came in there.",
        node=seen.node,
        mac=seen.mac,
        state=seen.state,
        address=seen.address,
        device=seen.device,
        peer_device=target.device,
        peer=leg.target_node,
        peer_mac=target.mac,
        count=left.seen,
    )
