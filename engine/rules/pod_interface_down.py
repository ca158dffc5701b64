"""A pod whose host interface is down is cut off, and Felix removes its route at once."""

from engine.rule import HEALS_NEVER, Text, cause, say, some, the
from facts import Leg, PodInterface


@cause(
    title="The pod's interface on its node is down",
    severity="breaks",
    remedy="Set it up (ip link set INTERFACE up) or recreate the pod. Felix never sets it up; once it is, a living "
    "Felix writes the pod's route again.",
    fix="set_link_up",
    after=["pod_not_running", "pod_interface_missing"],
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
        found=True,
    ),
)
def pod_interface_down(leg: Leg, interface: PodInterface) -> Text | None:
    if interface.up:
        return None
    return say(
        "{interface} of {pod} on {node} is administratively down.",
        interface=interface.interface,
        pod=leg.source,
        node=interface.node,
    )
