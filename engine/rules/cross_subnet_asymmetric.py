"""Two nodes disagree on their subnet: one tunnels, the other does not, and strict filters drop what comes that way."""

from engine.rule import HEALS_NEVER, Finding, cause, say, some, the
from facts import Arrival, Leg, RouteLookup

TUNNELS = ("vxlan", "ipip")
REFUSED_BY_FILTER = ("EXDEV", "EINVAL")


@cause(
    title="The two nodes disagree whether they share a subnet",
    severity="breaks",
    remedy="Give both nodes the prefix length of their real network (annotation IPv4Address or IPv6Address, "
    "from the interface or IP_AUTODETECTION_METHOD) and restart the calico-node pod of the one that was wrong.",
    at=the.leg.source_node,
    stage="target tunnel",
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, cross_subnet=True, crosses=True),
    back=some(Leg, flow=the.leg.flow, source=the.leg.target, target=the.leg.source),
    way_in=some(Arrival, flow=the.leg.flow, direction=the.leg.direction, node=the.leg.target_node),
    arrival=some(
        RouteLookup,
        node=the.leg.target_node,
        destination=the.leg.target_address,
        source=the.leg.source_address,
        incoming=the.way_in.device,
    ),
)
def cross_subnet_asymmetric(leg: Leg, back: Leg, way_in: Arrival, arrival: RouteLookup) -> Finding | None:
    if leg.encapsulation not in TUNNELS or back.encapsulation != "direct" or not back.cross_subnet:
        return None  # pods of two pools may well travel differently
    dropped = not arrival.found and arrival.error in REFUSED_BY_FILTER and not arrival.type
    disagree = say(
        "{node} has {address} in {subnet} and tunnels to {peer_address}; {peer} has {peer_address} in {peer_subnet} "
        "and sends back without a tunnel",
        node=leg.source_node,
        address=leg.source_node_address,
        subnet=leg.source_node_subnet,
        peer=leg.target_node,
        peer_address=leg.target_node_address,
        peer_subnet=back.source_node_subnet,
    )
    if not dropped:
        return Finding(say("{disagree}.", disagree=disagree), severity="warns")
    return Finding(
        say(
            "{disagree}; {node} drops what comes in by {device}, for its way back is another.",
            disagree=disagree,
            node=arrival.node,
            device=arrival.incoming,
        )
    )
