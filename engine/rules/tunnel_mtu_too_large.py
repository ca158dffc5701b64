"""A tunnel that takes packets its uplink cannot carry with a VXLAN header around them loses or splits large ones."""

from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from facts import Leg, Link, PodInterface, ProbeResult

OVERHEAD = {4: 50, 6: 70}  # outer IP, UDP and VXLAN headers, and the inner Ethernet header


@cause(
    title="The tunnel's MTU is too large for the uplink",
    severity="degrades",
    remedy="Set the uplink's MTU back, or vxlanMTU (vxlanMTUV6) of the FelixConfiguration to what is right (when it is "
    "found out automatically: mtuIfacePattern must match the uplink), and recreate the pods.",
    after=["vxlan_device_missing"],
    at=the.leg.source_node,
    stage="source tunnel",
    both_ways=True,
    heals_within_s=NOT_FELIX,
    leg=some(Leg, encapsulation="vxlan", source_kind="pod"),
    tunnel=some(Link, node=the.leg.source_node, device=the.leg.tunnel_device, found=True),
    uplink=some(Link, node=the.leg.source_node, device=the.tunnel.parent, found=True),
    interface=some(
        PodInterface,
        node=the.leg.source_node,
        pod=the.leg.source,
        family=the.leg.family,
        interface=the.leg.source_interface,
        found=True,
        entered=True,
    ),
    small=some(ProbeResult, pod=the.leg.source, target_address=the.leg.target_address, protocol="icmp", size=0),
    full=some(
        ProbeResult,
        pod=the.leg.source,
        target_address=the.leg.target_address,
        protocol="icmp",
        size=the.interface.pod_mtu,
    ),
)
def tunnel_mtu_too_large(
    leg: Leg, tunnel: Link, uplink: Link, interface: PodInterface, small: ProbeResult, full: ProbeResult
) -> Finding | None:
    most = uplink.mtu - OVERHEAD[leg.family]
    if uplink.mtu <= 0 or tunnel.mtu <= most:
        return None
    too_large = say(
        "{device} on {node} has MTU {mtu}, but {uplink} below it has {uplink_mtu} and VXLAN needs {overhead}: "
        "at most {most} is right",
        device=tunnel.device,
        node=tunnel.node,
        mtu=tunnel.mtu,
        uplink=uplink.device,
        uplink_mtu=uplink.mtu,
        overhead=OVERHEAD[leg.family],
        most=most,
    )
    # A pod with a smaller MTU than the tunnel's lives well with it.
    if interface.pod_mtu <= most or not full.lost_for_its_size(small):
        return Finding(say("{too_large}.", too_large=too_large), severity="warns")
    return Finding(
        say(
            "{too_large}. Packets of {size} bytes from {pod} do not pass, small ones do.",
            too_large=too_large,
            size=full.size,
            pod=leg.source,
        )
    )
