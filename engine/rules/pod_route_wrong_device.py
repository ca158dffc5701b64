"""The pod's /32 on its own node leads elsewhere than to the pod's interface: a stranger gets its packets, or nobody."""

from engine.prefix import host
from engine.rule import HEALS_ENTRY, HEALS_NEVER, Finding, cause, say, some, the
from facts import CalicoNode, Leg, PodInterface, RouteLookup

FELIX = 80  # the protocol of its own routes; it removes those it does not want


@cause(
    title="The pod's own node leads its packets elsewhere",
    severity="breaks",
    remedy="Delete this route (ip route del, with its type, device and metric) or address (ip addr del), and find who "
    "added it; Felix's own route has the pod's interface.",
    fix="replace_route",
    other_fixes=["delete_foreign_route"],
    after=["pod_not_running", "routing_rule_diverts"],
    at=the.leg.target_node,
    stage="target node",
    heals_within_s=HEALS_ENTRY,
    leg=some(Leg, target_kind="pod"),
    node=some(CalicoNode, name=the.leg.target_node, family=the.leg.family),
    # The pod's own interface must be there: else its computed name may be wrong, or another failure mode speaks.
    pod=some(
        PodInterface,
        node=the.leg.target_node,
        pod=the.leg.target,
        family=the.leg.family,
        interface=the.leg.target_interface,
        found=True,
    ),
    route=some(RouteLookup, node=the.leg.target_node, destination=the.leg.target_address, source="", incoming=""),
)
def pod_route_wrong_device(leg: Leg, node: CalicoNode, pod: PodInterface, route: RouteLookup) -> Finding | None:
    if route.prefix != host(leg.target_address):
        return None
    if not route.found:
        return Finding(
            say(
                "{node} answers packets to {pod} with {type} {prefix}, a route that wins over Felix's to {interface}.",
                node=route.node,
                pod=leg.target,
                type=route.type,
                prefix=route.prefix,
                interface=pod.interface,
            ),
            heals_within_s=HEALS_ENTRY if route.protocol == FELIX else HEALS_NEVER,
        )
    if not route.device or route.device == pod.interface:
        return None
    if route.type == "local":
        return Finding(
            say(
                "{node} takes {address} for an address of its own; {pod} is behind {interface}.",
                node=route.node,
                address=leg.target_address,
                pod=leg.target,
                interface=pod.interface,
            ),
            heals_within_s=HEALS_NEVER,
        )
    felix_s = route.device.startswith(tuple(filter(None, node.interface_prefix.split(","))))
    return Finding(
        say(
            "{node} sends {prefix} to {device}; {pod} is behind {interface}.",
            node=route.node,
            prefix=route.prefix,
            device=route.device,
            pod=leg.target,
            interface=pod.interface,
        ),
        heals_within_s=HEALS_ENTRY if felix_s else HEALS_NEVER,
    )
