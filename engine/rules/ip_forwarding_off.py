"""A node that does not forward drops every packet of its pods, silently."""

from engine.rule import HEALS_NEVER, Finding, cause, some, the
from facts import Leg, Sysctl


@cause(
    title="The node does not forward packets",
    severity="breaks",
    remedy="Set the switch to 1 and find what set it to 0 (a sysctl.d file, a hardening tool).",
    at=the.leg.source_node,
    stage="source node",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, source_kind="pod"),
    node=some(Sysctl, node=the.leg.source_node, name="net.ipv4.ip_forward", found=True),
    pod=some(
        Sysctl, node=the.leg.source_node, family=the.leg.family, device=the.leg.source_interface, switch="forwarding"
    ),
    tunnel=some(
        Sysctl, node=the.leg.source_node, family=the.leg.family, device=the.leg.tunnel_device, switch="forwarding"
    ),
)
def ip_forwarding_off(leg: Leg, node: Sysctl, pod: Sysctl, tunnel: Sysctl) -> str | Finding | None:
    # The kernel asks the device a packet comes in by; the node's switch only sets all of them at once.
    entries = (pod, tunnel) if leg.encapsulation == "vxlan" else (pod,)
    stopped = [entry for entry in entries if entry.value == "0"]
    if stopped and node.value == "0":
        return f"net.ipv4.ip_forward is 0 on {node.node}: nothing to or from its pods is forwarded."
    if stopped:
        names = " and ".join(entry.name for entry in stopped)
        devices = " and ".join(entry.device for entry in stopped)
        return (
            f"{names} {'is' if len(stopped) == 1 else 'are'} 0 on {node.node}, although net.ipv4.ip_forward is "
            f"{node.value}: what comes in by {devices} is not forwarded."
        )
    if node.value == "0":
        return Finding(
            f"net.ipv4.ip_forward is 0 on {node.node}; only the interfaces of this flow were set to forward since, "
            "and the next one will not.",
            severity="warns",
        )
    return None
