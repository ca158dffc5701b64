"""The pod's /32 on its own node leads to another interface than the pod's: a stranger gets its packets, or nobody."""

from engine.prefix import host
from engine.rule import HEALS_ENTRY, HEALS_NEVER, Finding, cause, say, some, the
from facts import CalicoNode, Leg, PodInterface, RouteLookup


@cause(
    title="The pod's own node sends its packets to another interface",
    severity="breaks",
    remedy="Delete this route (ip route del, with its device and metric); Felix's own has the pod's interface.",
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
    route=some(
        RouteLookup, node=the.leg.target_node, destination=the.leg.target_address, source="", incoming="", found=True
    ),
)
def pod_route_wrong_device(leg: Leg, node: CalicoNode, pod: PodInterface, route: RouteLookup) -> Finding | None:
    if route.prefix != host(leg.target_address) or not route.device or route.device == pod.interface:
        return None
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
