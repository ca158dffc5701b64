"""A pod that builds larger packets than its node's tunnel takes loses them, or learns better only by ICMP."""

from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from facts import Leg, Link, PodInterface, ProbeResult


@cause(
    title="The pod's MTU is larger than the tunnel's",
    severity="degrades",
    remedy="Recreate the pod: a pod keeps the MTU of the day it was made. If new pods are wrong too, compare the mtu "
    "of the CNI configuration with that of the tunnel device.",
    at=the.leg.source_node,
    stage="source tunnel",
    heals_within_s=NOT_FELIX,
    leg=some(Leg, encapsulation="vxlan", source_kind="pod"),
    interface=some(
        PodInterface,
        node=the.leg.source_node,
        pod=the.leg.source,
        family=the.leg.family,
        interface=the.leg.source_interface,
        found=True,
        entered=True,
    ),
    tunnel=some(Link, node=the.leg.source_node, device=the.leg.tunnel_device, found=True),
    small=some(ProbeResult, pod=the.leg.source, target_address=the.leg.target_address, protocol="icmp", size=0),
    full=some(
        ProbeResult,
        pod=the.leg.source,
        target_address=the.leg.target_address,
        protocol="icmp",
        size=the.interface.pod_mtu,
    ),
)
def pod_mtu_too_large(
    leg: Leg, interface: PodInterface, tunnel: Link, small: ProbeResult, full: ProbeResult
) -> Finding | None:
    if tunnel.mtu <= 0 or interface.pod_mtu <= tunnel.mtu:
        return None
    too_large = say(
        "{device} of {pod} has MTU {mtu}, {tunnel} on {node} only {tunnel_mtu}",
        device=interface.pod_device,
        pod=leg.source,
        mtu=interface.pod_mtu,
        tunnel=tunnel.device,
        node=tunnel.node,
        tunnel_mtu=tunnel.mtu,
    )
    if not full.lost_for_its_size(small):
        return Finding(say("{too_large}.", too_large=too_large), severity="warns")
    return Finding(
        say("{too_large}: packets of {size} bytes do not pass, small ones do.", too_large=too_large, size=full.size)
    )
