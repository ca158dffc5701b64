"""A pod that hears no answer when it asks for its gateway's MAC sends nothing: where all that answers is in order,
something between the two ends of its interface takes the question or the answer, and no rule about IP tells of it."""

from engine.rule import HEALS_NEVER, Text, cause, say, some, the
from engine.sender import INTERFACE
from facts import Leg, PodInterface, ProbeResult

GATEWAY = "169.254.1.1"  # of every pod of Calico's, and nobody's address
LINK_LOCAL = "fe80:"  # over IPv6 it is that of the pod's interface on the node


@cause(
    title="The pod's question for its gateway's MAC is not answered",
    severity="breaks",
    last_resort=True,
    remedy="Look for what filters ARP on the node and inside the pod: `nft list tables arp` and what is in them, "
    "arptables, `ip link` with NOARP or a `master` (a VRF, a bridge), arp_ignore and arp_filter, and who put them "
    "there; over IPv6 for what drops ICMPv6 there. `tcpdump -ni INTERFACE arp or icmp6` on the node tells which of the "
    "two is lost: the question or the answer. Felix touches none of these.",
    after=["ipv6_disabled", "node_without_default_route", "pod_default_route_missing", "pod_eth0_down",
           "pod_gateway_mac_wrong", "pod_gateway_missing", "pod_interface_down", "pod_interface_missing",
           "pod_ipv6_disabled", "pod_neighbor_wrong", "pod_routes_astray", "proxy_arp_off", "traffic_control_drops",
           "xdp_program_on_pod_interface"],
    at=the.leg.source_node,
    stage="source veth",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, source_kind="pod"),
    interface=INTERFACE,
    pings=some(
        ProbeResult,
        node=the.leg.source_node,
        pod=the.leg.source,
        target_address=the.leg.target_address,
        protocol="icmp",
        size=0,
    ),
)  # fmt: skip
def pod_gateway_silent(leg: Leg, interface: PodInterface, pings: ProbeResult) -> Text | None:
    """Of a gateway that is not Calico's nobody knows who should answer. A question that is just being asked looks the
    same: whose packets come back has heard the answer a moment later."""
    if pings.answered:
        return None
    gateway = interface.pod_default_next_hop
    if not interface.up or not interface.pod_up:
        return None
    if leg.encapsulation == "unknown" or not leg.source_block:
        return None
    if gateway != GATEWAY and not gateway.startswith(LINK_LOCAL):
        return None
    # Who is just asking was looked at twice (engine.settling).
    if interface.pod_gateway_mac or not (interface.pod_gateway_state == "FAILED" or gateway in interface.pod_asking):
        return None
    return say(
        "{pod} asks for the MAC of {gateway} by {device}, and hears no answer, though {interface} on {node} is up and "
        "has what it needs to answer.",
        pod=leg.source,
        gateway=gateway,
        device=interface.pod_device,
        interface=interface.interface,
        node=leg.source_node,
    )
