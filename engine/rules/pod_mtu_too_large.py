"""A pod that builds larger packets than its node's tunnel or uplink takes loses them, or learns only by ICMP."""

from engine.passage import with_largest
from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from engine.sender import FULL, INTERFACE, ROOM, SMALL
from facts import Leg, PodInterface, ProbeResult, Room


@cause(
    title="The pod's MTU is larger than what its node sends on",
    severity="degrades",
    remedy="Recreate the pod: a pod keeps the MTU of the day it was made. If new pods are wrong too, compare the mtu "
    "of the CNI configuration with that of the tunnel device or uplink.",
    at=the.leg.source_node,
    stage="source tunnel",
    heals_within_s=NOT_FELIX,
    leg=some(Leg, crosses=True, source_kind="pod"),
    interface=INTERFACE,
    room=ROOM,
    full=FULL,
    small=SMALL,
)
def pod_mtu_too_large(
    leg: Leg, interface: PodInterface, room: Room, full: ProbeResult, small: ProbeResult
) -> Finding | None:
    if room.size <= 0 or interface.pod_mtu <= room.size:
        return None
    too_large = say(
        "{device} of {pod} has MTU {mtu}, {tunnel} on {node} only {tunnel_mtu}",
        device=interface.pod_device,
        pod=leg.source,
        mtu=interface.pod_mtu,
        tunnel=room.device,
        node=room.node,
        tunnel_mtu=room.size,
    )
    if full.alone or not full.lost_for_its_size(small):
        return Finding(say("{too_large}.", too_large=too_large), severity="warns")
    lost = say("{too_large}: packets of {size} bytes do not pass, small ones do.", too_large=too_large, size=full.size)
    return Finding(with_largest(lost, full))
