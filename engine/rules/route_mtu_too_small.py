"""A route may say that packets by it are to be smaller than any device on the way demands; whoever sends larger ones
looks at devices in vain."""

from engine.passage import with_largest
from engine.rule import NOT_FELIX, Text, cause, say, some, the
from engine.sender import FULL, INTERFACE, ROOM, SMALL
from facts import Leg, PodInterface, ProbeResult, Room, RouteLookup


@cause(
    title="A route of the node takes smaller packets than its tunnel or uplink",
    severity="degrades",
    remedy="Read `ip route get` of that address on the node: the route says `mtu`. Find what wrote it: an MTU in the "
    "FelixConfiguration that was changed since, a tuning script, a route by hand. Recreate the route without it (ip "
    "route replace), or recreate the pods where the smaller MTU is meant.",
    after=["pod_mtu_too_large", "tunnel_mtu_too_large"],
    at=the.leg.source_node,
    stage="source node",
    heals_within_s=NOT_FELIX,
    leg=some(Leg, crosses=True, source_kind="pod"),
    interface=INTERFACE,
    room=ROOM,
    route=some(
        RouteLookup,
        node=the.leg.source_node,
        destination=the.leg.target_address,
        source=the.leg.source_address,
        incoming=the.leg.source_interface,
    ),
    full=FULL,
    small=SMALL,
)
def route_mtu_too_small(
    leg: Leg, interface: PodInterface, room: Room, route: RouteLookup, full: ProbeResult, small: ProbeResult
) -> Text | None:
    if not 0 < route.mtu < min(interface.pod_mtu, room.size) or not full.lost_for_its_size(small):
        return None
    lost = say(
        "the route {prefix} on {node} says MTU {mtu}, while {device} takes {room} and {pod} sends up to {size} bytes: "
        "packets of that size do not pass, small ones do.",
        prefix=route.prefix,
        node=route.node,
        mtu=route.mtu,
        device=room.device,
        room=room.size,
        pod=leg.source,
        size=full.size,
    )
    return with_largest(lost, full)
