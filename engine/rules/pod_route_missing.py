"""Without the pod's /32 its own node does not know which interface leads to it."""

from engine.prefix import host
from engine.rule import HEALS_ENTRY, cause, some, the
from facts import Leg, RouteLookup


@cause(
    title="The pod's own node has no route to it",
    severity="breaks",
    remedy="If Felix on this node is alive it will come back by itself; if not, restart its calico-node pod.",
    after=["pod_interface_missing", "pod_interface_down", "pod_eth0_down", "pod_not_running", "routing_rule_diverts"],
    at=the.leg.target_node,
    stage="target node",
    heals_within_s=HEALS_ENTRY,
    leg=some(Leg, target_kind="pod"),
    route=some(RouteLookup, node=the.leg.target_node, destination=the.leg.target_address, source="", incoming=""),
)
def pod_route_missing(leg: Leg, route: RouteLookup) -> str | None:
    if route.found and route.prefix == host(leg.target_address):
        return None
    if route.type == "blackhole":
        instead = f"the blackhole {route.prefix or 'of its own block'} answers"
    elif route.found:
        instead = f"{route.prefix} by {route.device} is used"
    else:
        instead = f"the kernel says {route.error}"
    return (
        f"{route.node} has no route {leg.target_address}/32 dev {leg.target_interface} to {leg.target}; "
        f"{instead} instead."
    )
