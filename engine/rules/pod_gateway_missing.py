"""An IPv6 pod's gateway is the link-local address of its interface on the node; without it the pod falls silent."""

from engine.rule import HEALS_NEVER, Finding, Text, cause, say, some, the
from facts import Leg, LinkAddresses, PodInterface


@cause(
    title="The pod's IPv6 gateway does not exist",
    severity="breaks",
    last_resort=True,  # with another default route the kernel leaves out the one whose router is silent
    remedy="Recreate the pod, or give its interface on the node the address back (ip -6 addr add ADDRESS/64 dev "
    "INTERFACE); Felix never does it. Find what removed it: a hardening tool, a network manager.",
    after=["ipv6_disabled", "pod_interface_down", "pod_interface_missing"],
    at=the.leg.source_node,
    stage="source veth",
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
    held=some(LinkAddresses, node=the.leg.source_node, family=6, device=the.leg.source_interface, found=True),
)
def pod_gateway_missing(leg: Leg, interface: PodInterface, held: LinkAddresses) -> Finding | Text | None:
    gateway = interface.pod_default_next_hop
    usable = [one.split("/")[0] for one in held.addresses if one not in held.duplicates]
    # A gateway that is not link-local is nobody's of Calico's, and a fixed entry needs nobody to answer.
    if not gateway.startswith("fe80:") or gateway in usable or interface.pod_gateway_state == "PERMANENT":
        return None
    lacking = say(
        "{pod} sends by {gateway}, an address that {interface} on {node} does not have",
        pod=leg.source,
        gateway=gateway,
        interface=held.device,
        node=held.node,
    )
    if interface.pod_gateway_mac:
        return Finding(
            say("{lacking}: the pod still remembers its MAC, and is cut off within a minute.", lacking=lacking),
            severity="warns",
        )
    return say("{lacking}: the pod asks for its MAC in vain.", lacking=lacking)
