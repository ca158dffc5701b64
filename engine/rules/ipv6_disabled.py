"""A device whose IPv6 is disabled loses its addresses, routes and neighbors of it, while IPv4 goes on beside it."""

from engine.rule import HEALS_NEVER, Text, cause, listed, say, some, the
from facts import Leg, Sysctl


@cause(
    title="IPv6 is disabled on a device the packets need",
    severity="breaks",
    remedy="Set disable_ipv6 of the device back to 0 and find what set it (a sysctl.d file, a hardening tool); then "
    "restart the calico-node pod of this node, which sets addresses and routes again.",
    fix="set_sysctl",
    after=["vxlan_device_missing", "wireguard_device_missing", "pod_interface_missing"],
    at=the.leg.source_node,
    stage="source node",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, family=6, source_inside=True),
    entry=some(Sysctl, node=the.leg.source_node, family=6, device=the.leg.entry_device, switch="disable_ipv6"),
    tunnel=some(Sysctl, node=the.leg.source_node, family=6, device=the.leg.tunnel_device, switch="disable_ipv6"),
)
def ipv6_disabled(leg: Leg, entry: Sysctl, tunnel: Sysctl) -> Text | None:
    needed = [entry] if leg.source_kind == "pod" else []  # what a node sends itself comes in by no device
    if leg.expected_device and tunnel not in needed:
        needed.append(tunnel)
    disabled = [one for one in needed if one.value == "1"]
    unfit = [one for one in needed if not one.found]  # of a device that is missing, another failure mode speaks
    if not disabled and not unfit:
        return None
    if not disabled:
        return say(
            "{devices} on {node} cannot carry IPv6: its MTU is below 1280, or the kernel's IPv6 is off.",
            devices=listed([one.device for one in unfit]),
            node=entry.node,
        )
    return say(
        "{switches} is 1 on {node}: {devices} neither sends nor takes IPv6."
        if len(disabled) == 1
        else "{switches} are 1 on {node}: {devices} neither send nor take IPv6.",
        switches=listed([one.name for one in disabled]),
        node=entry.node,
        devices=listed([one.device for one in disabled]),
    )
