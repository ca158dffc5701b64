"""A node that does not forward drops every packet of its pods, silently."""

from engine.rule import HEALS_NEVER, Finding, Text, cause, listed, say, some, the
from facts import Leg, Sysctl

TUNNELS = ("vxlan", "ipip", "wireguard")
BARE = ("direct", "host", "outside")  # whose packets, or their answers, come in by the uplink as they are


@cause(
    title="The node does not forward packets",
    severity="breaks",
    remedy="Set the switch to 1 and find what set it to 0 (a sysctl.d file, a hardening tool).",
    fix="set_sysctl",
    at=the.leg.source_node,
    stage="source node",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, source_kind="pod"),
    node=some(Sysctl, node=the.leg.source_node, name=the.leg.forwarding, found=True),
    pod=some(
        Sysctl, node=the.leg.source_node, family=the.leg.family, device=the.leg.source_interface, switch="forwarding"
    ),
    tunnel=some(
        Sysctl, node=the.leg.source_node, family=the.leg.family, device=the.leg.tunnel_device, switch="forwarding"
    ),
)
def ip_forwarding_off(leg: Leg, node: Sysctl, pod: Sysctl, tunnel: Sysctl) -> Text | Finding | None:
    entries = (pod, tunnel) if leg.encapsulation in TUNNELS else (pod,)
    if leg.family == 6:
        return _ipv6(node, entries)
    # The kernel asks the device a packet comes in by; the node's switch only sets all of them at once.
    stopped = [entry for entry in entries if entry.value == "0"]
    if stopped and node.value == "0":
        return say(
            "net.ipv4.ip_forward is 0 on {node}: nothing to or from its pods is forwarded.",
            node=node.node,
        )
    if stopped:
        return say(
            "{switches} is 0 on {node}, although net.ipv4.ip_forward is {value}: "
            "what comes in by {devices} is not forwarded."
            if len(stopped) == 1
            else "{switches} are 0 on {node}, although net.ipv4.ip_forward is {value}: "
            "what comes in by {devices} is not forwarded.",
            switches=listed([entry.name for entry in stopped]),
            node=node.node,
            value=node.value,
            devices=listed([entry.device for entry in stopped]),
        )
    if node.value == "1" and node.unlike and leg.encapsulation in BARE:
        return say(
            "net.ipv4.conf.{device}.forwarding is 0 on {node}, although net.ipv4.ip_forward is 1: what comes in by "
            "{device} is not forwarded.",
            device=node.unlike[0],
            node=node.node,
        )
    if node.value == "0":
        return Finding(
            say(
                "net.ipv4.ip_forward is 0 on {node}; only the interfaces of this flow were set to forward since, "
                "and the next one will not.",
                node=node.node,
            ),
            severity="warns",
        )
    return None


def _ipv6(node: Sysctl, entries: tuple[Sysctl, ...]) -> Text | None:
    """Here the kernel asks the node's switch, but for devices that are forced to forward."""
    if node.value != "0" or all(entry.value == "1" for entry in entries):
        return None
    return say("{switch} is 0 on {node}: nothing to or from its pods is forwarded.", switch=node.name, node=node.node)
