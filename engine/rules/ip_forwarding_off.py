"""A node that does not forward drops every packet of its pods, silently."""

from engine.rule import HEALS_NEVER, cause, some, the
from facts import Leg, Sysctl


@cause(
    title="The node does not forward packets",
    severity="breaks",
    remedy="Set net.ipv4.ip_forward=1 and find what set it to 0 (a sysctl.d file, a hardening tool).",
    at=the.leg.source_node,
    stage="source node",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg),
    switch=some(Sysctl, node=the.leg.source_node, name="net.ipv4.ip_forward", found=True),
)
def ip_forwarding_off(leg: Leg, switch: Sysctl) -> str | None:
    if switch.value != "0":
        return None
    return f"net.ipv4.ip_forward is 0 on {switch.node}: nothing to or from {leg.source} is forwarded."
