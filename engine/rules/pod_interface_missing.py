"""Without the host side of its veth a pod hangs in the air: nothing leads into it and nothing out."""

from engine.prefix import host, is_default
from engine.rule import HEALS_NEVER, Text, cause, say, some, the
from facts import Endpoint, Leg, PodInterface, RouteLookup


@cause(
    title="The pod's interface on its node is missing",
    severity="breaks",
    remedy="Delete the pod, so that it is made again with a network; nothing puts the interface back into this one.",
    after=["pod_not_running"],
    at=the.leg.source_node,
    stage="source veth",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, source_kind="pod"),
    interface=some(
        PodInterface,
        node=the.leg.source_node,
        pod=the.leg.source,
        family=the.leg.family,
        interface=the.leg.source_interface,
    ),
    route=some(RouteLookup, node=the.leg.source_node, destination=the.leg.source_address, source="", incoming=""),
    endpoint=some(Endpoint, name=the.leg.source),
)
def pod_interface_missing(leg: Leg, interface: PodInterface, route: RouteLookup, endpoint: Endpoint) -> Text | None:
    if interface.found:
        return None
    if route.found and route.prefix == host(leg.source_address) and route.device != leg.source_interface:
        return None  # its node knows a way to it: the interface has another name than the one Calico would give it
    if not leg.source_block and route.found and not is_default(route.prefix):
        return None  # another plugin gave it its address, and calls interfaces as it likes
    return say(
        "{interface}, the interface of {pod}, does not exist on {node}; the pod is being deleted."
        if endpoint.terminating
        else "{interface}, the interface of {pod}, does not exist on {node}.",
        interface=interface.interface,
        pod=leg.source,
        node=interface.node,
    )
