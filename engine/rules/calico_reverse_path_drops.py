"""Calico drops what a pod sends under an address that its node does not reach by that pod's interface, as forged."""

from engine.dropped import packets, rule_of, told
from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from facts import Blame, Leg, RuleDrop, Stop


@cause(
    title="Calico takes the packets for forged",
    severity="breaks",
    remedy="Look at how this node routes to the packets' source, with the mark that Calico gives to pods' packets: "
    "`ip rule`, and `ip route get ADDRESS mark MARK`. It must be by the pod's own interface. A pod that sends under "
    "another address on purpose needs the annotation cni.projectcalico.org/allowedSourcePrefixes.",
    after=[
        "pod_route_missing",
        "pod_route_wrong_device",
        "pod_address_disagrees",
        "pod_ip_duplicate",
        "pod_interface_missing",
        "foreign_route_to_pod",
        "route_blackholed",
        "routing_rule_diverts",
        "reverse_path_filter_drops",
    ],
    at=the.stop.node,
    heals_within_s=NOT_FELIX,
    stop=some(Stop),
    leg=some(Leg, flow=the.stop.flow, direction=the.stop.leg),
    drop=some(RuleDrop, id=the.stop.drop),
    blame=some(Blame, drop=the.stop.drop),
)
def calico_reverse_path_drops(stop: Stop, leg: Leg, drop: RuleDrop, blame: Blame) -> Finding | None:
    """A missing route to the pod looks the same in the counters, and is told instead of this where it is found."""
    if blame.what != "reverse_path":
        return None
    said = say(
        "{node} drops {packets} as forged: by its routes {address} is not reached by {interface}, where they come in.",
        node=drop.node,
        packets=packets(drop, leg),
        address=leg.source_address,
        interface=leg.source_interface,
    )
    return Finding(told(said, rule_of(drop)), stage=stop.stage)
