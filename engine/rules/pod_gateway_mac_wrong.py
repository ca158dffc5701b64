"""A wrong MAC for its gateway sends everything a pod says to nobody; a fixed one for ever, another for a minute."""

from engine.rule import HEALS_NEVER, Text, cause, say, some, the
from engine.sender import INTERFACE
from facts import Leg, PodInterface, ProbeResult

FIXED = ("PERMANENT", "NOARP")


@cause(
    title="The pod has a wrong MAC for its gateway",
    severity="breaks",
    remedy="Delete the entry inside the pod (ip neigh del), and find what in the pod sets it; the pod then asks for "
    "the right one by itself.",
    at=the.leg.source_node,
    stage="source pod",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, source_kind="pod"),
    interface=INTERFACE,
    tried=some(
        ProbeResult,
        node=the.leg.source_node,
        pod=the.leg.source,
        target_address=the.leg.target_address,
        protocol="icmp",
        size=0,
    ),
)
def pod_gateway_mac_wrong(leg: Leg, interface: PodInterface, tried: ProbeResult) -> Text | None:
    """An entry that is not fixed has been asked anew once packets pass."""
    if interface.pod_gateway_mac in ("", interface.mac) or not interface.mac:
        return None
    if interface.pod_gateway_state not in FIXED and (tried.begins or not leg.source_block):
        return None  # another plugin's gateway may be a bridge
    return say(
        "{pod} sends frames for {gateway} to {fixed_mac} ({state}); {interface} on {node} is {mac}."
        if interface.pod_gateway_state in FIXED
        else "{pod} sends frames for {gateway} to {fixed_mac} ({state}); {interface} on {node} is {mac}, and was "
        "changed: the pod asks anew within a minute.",
        pod=leg.source,
        gateway=interface.pod_default_next_hop,
        fixed_mac=interface.pod_gateway_mac,
        state=interface.pod_gateway_state,
        interface=interface.interface,
        node=interface.node,
        mac=interface.mac,
    )
