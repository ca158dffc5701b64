"""A pod without a default route reaches nobody, not even to answer."""

from engine.rule import HEALS_NEVER, Text, cause, say, some, the
from engine.sender import INTERFACE
from facts import Endpoint, Leg, PodInterface, PodRoute


@cause(
    title="The pod has no default route",
    severity="breaks",
    remedy="Recreate the pod: only the CNI plugin sets its routes. If it happens again, look for what in the pod may "
    "change them (NET_ADMIN, an init container, a VPN client).",
    after=["pod_interface_missing", "pod_interface_down", "pod_eth0_down", "pod_ipv6_disabled"],
    at=the.leg.source_node,
    stage="source pod",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, source_kind="pod"),
    endpoint=some(Endpoint, name=the.leg.source),
    route=some(PodRoute, node=the.leg.source_node, pod=the.leg.source, destination=the.leg.target_address),
    interface=INTERFACE,
)
def pod_default_route_missing(leg: Leg, endpoint: Endpoint, route: PodRoute, interface: PodInterface) -> Text | None:
    """The kernel of a virtual machine or a sandbox may have taken address and routes for itself."""
    if endpoint.own_kernel and all(one.startswith("fe80:") for one in interface.pod_addresses):
        return None
    if route.error != "ENETUNREACH" or interface.pod_default_next_hop:
        return None
    return say(
        "inside {pod} no route leads to {address}, not even a default route.",
        pod=leg.source,
        address=leg.target_address,
    )
