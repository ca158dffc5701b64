"""A node whose uplink carries no IPv6 has lost its IPv6 address: it reaches no other node by it, while IPv4 goes on."""

from engine.rule import HEALS_NEVER, Text, cause, say, some, the
from facts import Leg, NodeAddress, Sysctl


@cause(
    title="IPv6 is disabled on the node's uplink",
    severity="breaks",
    remedy="Set disable_ipv6 of the uplink back to 0 and find what set it (a sysctl.d file, a hardening tool, the "
    "network manager); then give the uplink its address and routes back, or restart the network manager.",
    after=["vxlan_device_missing"],
    at=the.leg.source_node,
    stage="source node",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, family=6, crosses=True),
    held=some(NodeAddress, node=the.leg.source_node, address=the.leg.source_node_address),
    uplink=some(Sysctl, node=the.leg.source_node, family=6, device=the.held.device, switch="disable_ipv6"),
)
def uplink_ipv6_disabled(leg: Leg, held: NodeAddress, uplink: Sysctl) -> Text | None:
    if uplink.value != "1":
        return None
    return say(
        "{switch} is 1 on {node}: {device}, where {address} belongs, neither sends nor takes IPv6.",
        switch=uplink.name,
        node=uplink.node,
        device=uplink.device,
        address=held.address,
    )
