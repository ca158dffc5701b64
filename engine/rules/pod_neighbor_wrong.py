"""With a static wrong MAC for the pod on its own interface, the pod takes every frame for somebody else's; with none,
because the pod does not answer who has its address, it is sent nothing at all."""

from engine.between import UNRESOLVED
from engine.rule import HEALS_NEVER, Text, cause, say, some, the
from facts import Leg, Neighbor, PodInterface

STATIC = {"PERMANENT", "NOARP"}  # any other entry is checked by the kernel itself and soon right again


@cause(
    title="The pod's own node has no MAC for it, or a wrong one",
    severity="breaks",
    remedy="Delete a static entry (ip neigh del); the kernel learns the right one from the pod with the next packet. "
    "Where the pod gives no answer: look at net.ipv4.conf.*.arp_ignore inside of it and at what filters ARP there and "
    "on the node (arptables, ebtables, tables arp and netdev of nft); over IPv6 at what drops ICMPv6.",
    fix="replace_neighbor",
    after=[
        "pod_not_running",
        "pod_interface_down",
        "pod_eth0_down",
        "pod_address_disagrees",
        "pod_ipv6_disabled",
        "pod_gateway_mac_wrong",
        "pod_gateway_missing",  # an interface without a link-local address cannot ask over IPv6
        "traffic_control_drops",
        "xdp_program_on_pod_interface",
        "underlay_neighbor_wrong",  # a node that lets no neighbor discovery in gets no answer on any device
    ],
    after_peer=["underlay_neighbor_wrong"],
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
    if seen.asked and not seen.mac and seen.state in UNRESOLVED and _is_up(pod, seen.address):
        return say(
            "{node} asks by {interface} who has {address}, and gets no answer ({state}), though {device} of {pod} has "
            "it and is up.",
            node=seen.node,
            interface=seen.device,
            address=seen.address,
            state=seen.state,
            device=pod.pod_device,
            pod=leg.target,
        )
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


def _is_up(pod: PodInterface, address: str) -> bool:
    held = [one for one in pod.pod_addresses if one not in pod.pod_duplicates]
    return pod.up and pod.lower_up and pod.pod_up and any(one.split("/")[0] == address for one in held)
