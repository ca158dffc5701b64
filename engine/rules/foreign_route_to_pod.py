"""Somebody's longer route leads packets to the target past the tunnel, and Felix, whose it is not, never removes it.

Only routes to part of a block by a device that is neither the tunnel nor a pod's: those of Felix's devices it removes
itself. The other wrong entries and their names: route_wrong_device.
"""

from engine.prefix import covers_less
from engine.rule import HEALS_ENTRY, HEALS_NEVER, Finding, cause, say, some, the
from facts import Allocation, CalicoNode, Leg, RouteLookup

FELIX = 80  # the protocol of its own routes; it removes those it does not want, whatever their device


@cause(
    title="Somebody else's route takes packets to the target past the tunnel",
    severity="breaks",
    remedy="Find who wrote it (a routing daemon, a script, another network plugin) and delete it: ip route del.",
    after=["routing_rule_diverts"],
    at=the.leg.source_node,
    stage="source node",
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, encapsulation="vxlan"),
    node=some(CalicoNode, name=the.leg.source_node, family=the.leg.family),
    route=some(RouteLookup, node=the.leg.source_node, destination=the.leg.target_address, source="", incoming=""),
    allocation=some(Allocation, address=the.leg.target_address),
)
def foreign_route_to_pod(leg: Leg, node: CalicoNode, route: RouteLookup, allocation: Allocation) -> Finding | None:
    if not route.found or route.type == "local" or not covers_less(route.prefix, leg.target_block):
        return None
    if not route.device or route.device == leg.tunnel_device:
        return None
    if route.device.startswith(tuple(filter(None, node.interface_prefix.split(",")))):
        return None
    if route.protocol == FELIX and allocation.node not in ("", leg.target_node):
        return None  # Felix does what IPAM says: allocation_owner_mismatch
    via = say("{prefix} via {next_hop}", prefix=route.prefix, next_hop=route.next_hop)
    return Finding(
        say(
            "{node} sends {route} by {device} (protocol {protocol}), before Calico's route for {block} by {tunnel}.",
            node=route.node,
            route=via if route.next_hop else route.prefix,
            device=route.device,
            protocol=route.protocol,
            block=leg.target_block,
            tunnel=leg.tunnel_device,
        ),
        heals_within_s=HEALS_ENTRY if route.protocol == FELIX else HEALS_NEVER,
    )
