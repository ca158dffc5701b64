"""A pod whose own kernel settings disable IPv6 has neither the address Calico gave it nor a route, and IPv4 goes on."""

from engine.rule import HEALS_NEVER, Text, cause, say, some, the
from facts import Leg, PodInterface

SMALLEST_MTU = 1280


@cause(
    title="IPv6 is disabled inside the pod",
    severity="breaks",
    remedy="Find what sets net.ipv6.conf.*.disable_ipv6 inside the pod (its securityContext's sysctls, an init "
    "container, the container runtime) and recreate the pod without it; an MTU below 1280 has the same effect.",
    after=["pod_not_running", "pod_interface_missing", "pod_interface_down", "pod_eth0_down"],
    at=the.leg.source_node,
    stage="source pod",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, family=6, source_kind="pod"),
    interface=some(
        PodInterface,
        node=the.leg.source_node,
        pod=the.leg.source,
        family=6,
        interface=the.leg.source_interface,
        found=True,
        entered=True,
    ),
)
def pod_ipv6_disabled(leg: Leg, interface: PodInterface) -> Text | None:
    if interface.pod_ipv6:
        return None
    if 0 < interface.pod_mtu < SMALLEST_MTU:
        return say(
            "{device} in {pod} has MTU {mtu}, and the kernel carries IPv6 only by devices of at least {smallest}.",
            device=interface.pod_device,
            pod=leg.source,
            mtu=interface.pod_mtu,
            smallest=SMALLEST_MTU,
        )
    return say(
        "disable_ipv6 is 1 for {device} in {pod}: it neither sends nor takes IPv6, and has no {address}.",
        device=interface.pod_device,
        pod=leg.source,
        address=leg.source_address,
    )
