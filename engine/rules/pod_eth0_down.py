"""A pod that takes its own end of the veth down loses its routes with it, and the node's end has no carrier."""

from engine.rule import HEALS_NEVER, Text, cause, say, some, the
from facts import Leg, PodInterface


@cause(
    title="The pod's own end of its interface is down",
    severity="breaks",
    remedy="Recreate the pod, and find what in it takes interfaces down; setting it up alone does not bring back the "
    "pod's default route.",
    after=["pod_not_running", "pod_interface_missing", "pod_interface_down"],
    at=the.leg.source_node,
    stage="source pod",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, source_kind="pod"),
    interface=some(
        PodInterface,
        node=the.leg.source_node,
        pod=the.leg.source,
        family=the.leg.family,
        interface=the.leg.source_interface,
        found=True,
    ),
)
def pod_eth0_down(leg: Leg, interface: PodInterface) -> Text | None:
    if interface.entered and not interface.pod_up:
        return say("{device} in {pod} is administratively down.", device=interface.pod_device, pod=leg.source)
    if interface.up and not interface.lower_up:
        return say(
            "{interface} of {pod} on {node} is up and has no carrier: the pod's end of it is down.",
            interface=interface.interface,
            pod=leg.source,
            node=interface.node,
        )
    return None
