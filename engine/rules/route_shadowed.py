"""A route longer than the block's keeps the target's packets on the sender's own node, where the target is not.

A leftover of a pod that once had this address here, or the address itself on one of the node's devices. Borrowed
addresses have a longer route too, but by the tunnel. The other wrong entries and their names: route_wrong_device.
"""

from engine.prefix import covers_less
from engine.rule import HEALS_ENTRY, HEALS_NEVER, Finding, Text, cause, say, some, the
from engine.sender import ROUTE
from facts import CalicoNode, Leg, RouteLookup


@cause(
    title="A more specific route keeps packets to the target on the sender's node",
    severity="breaks",
    remedy="Delete the route (ip route del) or the address (ip addr del) once it is clear that no pod here has it; "
    "if one has, two pods share an address.",
    fix="delete_foreign_route",
    after=["routing_rule_diverts"],
    at=the.leg.source_node,
    stage="source node",
    heals_within_s=HEALS_ENTRY,
    leg=some(Leg, routed=True),
    node=some(CalicoNode, name=the.leg.source_node, family=the.leg.family),
    route=ROUTE,
)
def route_shadowed(leg: Leg, node: CalicoNode, route: RouteLookup) -> Text | Finding | None:
    if not route.found or not covers_less(route.prefix, leg.target_block):
        return None
    if route.type == "local":
        return Finding(
            say(
                "{node} takes {address} for an address of its own; {pod} is on {peer}.",
                node=route.node,
                address=leg.target_address,
                pod=leg.target,
                peer=leg.target_node,
            ),
            heals_within_s=HEALS_NEVER,
        )
    if not route.device.startswith(tuple(filter(None, node.interface_prefix.split(",")))):
        return None
    return say(
        "{node} sends {prefix} to its own interface {device}, before any route for {block}; {pod} is on {peer}.",
        node=route.node,
        prefix=route.prefix,
        device=route.device,
        block=leg.target_block,
        pod=leg.target,
        peer=leg.target_node,
    )
