"""A fixed wrong MAC for its gateway sends everything a pod says to nobody; the pod never asks again."""

from engine.rule import HEALS_NEVER, cause, some, the
from facts import Leg, PodInterface

FIXED = ("PERMANENT", "NOARP")  # any other entry is asked for anew within a minute


@cause(
    title="The pod has a fixed wrong MAC for its gateway",
    severity="breaks",
    remedy="Delete the entry inside the pod (ip neigh del), and find what in the pod sets it; the pod then asks for "
    "the right one by itself.",
    at=the.leg.source_node,
    stage="source pod",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, source_kind="pod"),
    interface=some(
        PodInterface,
        node=the.leg.source_node,
        pod=the.leg.source,
        family=the.leg.family,
        interface=the.leg.source_interface,
        found=True,
        entered=True,
    ),
)
def pod_gateway_mac_wrong(leg: Leg, interface: PodInterface) -> str | None:
    if interface.pod_gateway_state not in FIXED or interface.pod_gateway_mac in ("", interface.mac):
        return None
    return (
        f"{leg.source} sends frames for {interface.pod_default_next_hop} to {interface.pod_gateway_mac} "
        f"({interface.pod_gateway_state}); {interface.interface} on {interface.node} is {interface.mac}."
    )
