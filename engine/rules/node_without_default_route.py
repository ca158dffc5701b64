"""A node answers for a pod's gateway only while it has a route to it; pods fall silent up to 38 s after it went."""

from engine.rule import HEALS_NEVER, Finding, cause, say, some, the
from engine.sender import INTERFACE
from facts import Leg, PodInterface, RouteLookup

NO_GATEWAY = "0.0.0.0"  # the pod asks for each target itself


@cause(
    title="The node has no route to the pods' gateway",
    severity="breaks",
    remedy="Give the node its default route back and find what removed it (DHCP, the network manager).",
    at=the.leg.source_node,
    stage="source veth",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, source_kind="pod", family=4),
    interface=INTERFACE,
    route=some(
        RouteLookup,
        node=the.leg.source_node,
        destination=the.interface.pod_default_next_hop,
        source="",
        incoming="",
    ),
    asked=some(
        RouteLookup,
        node=the.leg.source_node,
        destination=the.interface.pod_default_next_hop,
        source=the.leg.source_address,
        incoming=the.leg.source_interface,
    ),
)
def node_without_default_route(
    leg: Leg, interface: PodInterface, route: RouteLookup, asked: RouteLookup
) -> Finding | None:
    # The kernel looks with the pod's address and interface, which a routing rule may lead elsewhere; with forwarding
    # or a reverse path filter in the way that look fails too, and the node's own shows that it is not the route.
    if route.found or asked.found or interface.pod_gateway_state == "PERMANENT":
        return None
    if interface.pod_default_next_hop == NO_GATEWAY:
        return None
    if leg.encapsulation == "unknown":  # eBPF may answer instead of the kernel
        return None
    lacking = say(
        "{node} has no route to {gateway} ({error}), so it does not answer for this gateway",
        node=route.node,
        gateway=route.destination,
        error=route.error,
    )
    if interface.pod_gateway_mac:
        return Finding(
            say(
                "{lacking}: {pod} still remembers its MAC, and is cut off within a minute.",
                lacking=lacking,
                pod=leg.source,
            ),
            severity="warns",
        )
    return Finding(say("{lacking}: {pod} asks for its MAC in vain.", lacking=lacking, pod=leg.source))
