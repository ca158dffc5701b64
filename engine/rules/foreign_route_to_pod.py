"""Somebody's longer route leads packets to the target astray, and Felix, whose it is not, never removes it.

Only routes to part of a block by a device that is neither the tunnel nor a pod's: those of Felix's devices it removes
itself. The other wrong entries and their names: route_wrong_device.
"""

from engine.prefix import covers_less
from engine.rule import HEALS_ENTRY, HEALS_NEVER, Finding, Text, cause, say, some, the
from engine.sender import ROUTE
from facts import Allocation, CalicoNode, Leg, Lost, RouteLookup

FELIX = 80  # the protocol of its own routes; it removes those it does not want, whatever their device
# Of addresses, `ip route` and network managers. A routing daemon's routes may be as right as BIRD's.
BY_HAND = (2, 3, 4)


@cause(
    title="Somebody else's route leads packets to the target astray",
    severity="breaks",
    remedy="Find who wrote it (a routing daemon, a script, another network plugin) and delete it: ip route del.",
    fix="delete_foreign_route",
    after=["routing_rule_diverts"],
    at=the.leg.source_node,
    stage="source node",
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, routed=True),
    node=some(CalicoNode, name=the.leg.source_node, family=the.leg.family),
    route=ROUTE,
    allocation=some(Allocation, address=the.leg.target_address),
    lost=some(Lost, flow=the.leg.flow, direction=the.leg.direction),
)
def foreign_route_to_pod(
    leg: Leg, node: CalicoNode, route: RouteLookup, allocation: Allocation, lost: Lost
) -> Finding | None:
    if not route.found or route.type == "local" or not covers_less(route.prefix, leg.target_block):
        return None
    if not route.device or route.device == leg.tunnel_device:
        return None
    if route.device.startswith(tuple(filter(None, node.interface_prefix.split(",")))):
        return None
    if route.protocol == FELIX and allocation.node not in ("", leg.target_node):
        return None  # Felix does what IPAM says: allocation_owner_mismatch
    found = _past_the_tunnel(leg, route) if leg.expected_device else _by_the_wrong_hop(leg, route, lost)
    if found is None:
        return None
    return Finding(found, heals_within_s=HEALS_ENTRY if route.protocol == FELIX else HEALS_NEVER)


def _past_the_tunnel(leg: Leg, route: RouteLookup) -> Text | None:
    if leg.route_by != "felix" and route.protocol not in BY_HAND:
        return None
    return say(
        "{sends}, before Calico's route for {block} by {tunnel}.",
        sends=_sends(route),
        block=leg.target_block,
        tunnel=leg.tunnel_device,
    )


def _by_the_wrong_hop(leg: Leg, route: RouteLookup, lost: Lost) -> Text | None:
    if leg.route_by == "felix":
        if route.protocol == FELIX or (route.next_hop or route.destination) == leg.expected_next_hop:
            return None  # route_wrong_next_hop
        return say(
            "{sends}, before Calico's route for {block} via {next_hop}.",
            sends=_sends(route),
            block=leg.target_block,
            next_hop=leg.expected_next_hop,
        )
    # Any route may be right: only one that is neither a routing daemon's nor leads to the target's node, and by which
    # packets are seen to get lost.
    if route.protocol not in BY_HAND or route.next_hop in (leg.target_node_address, leg.target_internal_address):
        return None
    if lost.sent:
        return say(
            "{sends}, which no part of Calico wrote, and of {count} packets that left for {target} none reached "
            "{peer}.",
            sends=_sends(route),
            count=lost.sent,
            target=leg.target,
            peer=leg.target_node,
        )
    if lost.hop:
        return say(
            "{sends}, which no part of Calico wrote, and nobody answers there for {hop} ({state}).",
            sends=_sends(route),
            hop=lost.hop,
            state=lost.state,
        )
    return None


def _sends(route: RouteLookup) -> Text:
    via = say("{prefix} via {next_hop}", prefix=route.prefix, next_hop=route.next_hop)
    return say(
        "{node} sends {route} by {device} (protocol {protocol})",
        node=route.node,
        route=via if route.next_hop else route.prefix,
        device=route.device,
        protocol=route.protocol,
    )
