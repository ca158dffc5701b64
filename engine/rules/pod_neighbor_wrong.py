"""With a static wrong MAC for the pod on its own interface, the pod takes every frame for somebody else's."""

from engine.rule import HEALS_NEVER, Text, cause, say, some, the
from facts import Leg, Neighbor, PodInterface

STATIC = {"PERMANENT", "NOARP"}  # any other entry is checked by the kernel itself and soon right again


@cause(
    title="The pod's own node has a wrong MAC for it",
    severity="breaks",
    remedy="Delete the entry (ip neigh del); the kernel learns the right one from the pod with the next packet.",
    fix="replace_neighbor",
    after=["pod_not_running"],
    at=the.leg.target_node,
    stage="target veth",
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, target_kind="pod"),
    pod=some(
        PodInterface,
        node=the.leg.target_node,
        pod=the.leg.target,
        family=the.leg.family,
        interface=the.leg.target_interface,
        found=True,
        entered=True,
    ),
    seen=some(Neighbor, node=the.leg.target_node, device=the.leg.target_interface, address=the.leg.target_address),
)
def pod_neighbor_wrong(leg: Leg, pod: PodInterface, seen: Neighbor) -> Text | None:
    if not STATIC & set(seen.state.split("|")) or not seen.mac or not pod.pod_mac or seen.mac == pod.pod_mac:
        return None
    return say(
        "{node} has {mac} as a static entry ({state}) for {address} on {interface}; {device} of {pod} is {pod_mac}.",
        node=seen.node,
        mac=seen.mac,
        state=seen.state,
        address=seen.address,
        interface=seen.device,
        device=pod.pod_device,
        pod=leg.target,
        pod_mac=pod.pod_mac,
    )
