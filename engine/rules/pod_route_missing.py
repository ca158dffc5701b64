"""Without the pod's /32 its own node does not know which interface leads to it."""

from engine.prefix import host, is_default
from engine.rule import HEALS_ENTRY, Text, cause, say, some, the
from facts import Leg, RouteLookup


@cause(
    title="The pod's own node has no route to it",
    severity="breaks",
    remedy="If Felix on this node is alive it will come back by itself; if not, restart its calico-node pod.",
    fix="replace_route",
    after=[
        "ipv6_disabled",
        "pod_interface_missing",
        "pod_interface_down",
        "pod_eth0_down",
        "pod_not_running",
        "routing_rule_diverts",
    ],
    at=the.leg.target_node,
    stage="target node",
    heals_within_s=HEALS_ENTRY,
    leg=some(Leg, target_kind="pod"),
    route=some(RouteLookup, node=the.leg.target_node, destination=the.leg.target_address, source="", incoming=""),
)
def pod_route_missing(leg: Leg, route: RouteLookup) -> Text | None:
    if route.prefix == host(leg.target_address):  # one that leads elsewhere, or nowhere: pod_route_wrong_device
        return None
    if route.ended_by:
        return None  # the route may well be there
    if not leg.target_block and route.found and not is_default(route.prefix):
        return None  # another plugin gave it its address, and may well lead there by a bridge
    if route.type == "blackhole":
        instead = say("the blackhole {prefix} answers", prefix=route.prefix or say("of its own block"))
    elif route.type and not route.found:
        instead = say("{type} {prefix} answers", type=route.type, prefix=route.prefix)
    elif route.found:
        instead = say("{prefix} by {device} is used", prefix=route.prefix, device=route.device)
    else:
        instead = say("the kernel says {error}", error=route.error)
    return say(
        "{node} has no route {prefix} dev {interface} to {pod}; {instead} instead.",
        node=route.node,
        prefix=host(leg.target_address),
        interface=leg.target_interface,
        pod=leg.target,
        instead=instead,
    )
