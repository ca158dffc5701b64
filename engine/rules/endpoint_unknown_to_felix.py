"""Felix makes chains for pods it has heard of; packets of any other interface of that name end at its last rule."""

from engine.dropped import packets, rule_of, told
from engine.rule import HEALS_CHAIN, Finding, cause, say, some, the
from facts import Blame, Leg, RuleDrop, Stop


@cause(
    title="Felix does not know the pod behind this interface",
    severity="breaks",
    remedy="Compare the interface with the pod's: is there a WorkloadEndpoint (in Kubernetes, a running pod with an "
    "address) for it on this node? If so, calico-node there has not heard of it: look at its log, or restart it.",
    after=["firewall_backends_mixed", "pod_interface_missing", "pod_without_ip", "pod_not_running"],
    at=the.stop.node,
    heals_within_s=HEALS_CHAIN,
    stop=some(Stop),
    leg=some(Leg, flow=the.stop.flow, direction=the.stop.leg),
    drop=some(RuleDrop, id=the.stop.drop),
    blame=some(Blame, drop=the.stop.drop),
)
def endpoint_unknown_to_felix(stop: Stop, leg: Leg, drop: RuleDrop, blame: Blame) -> Finding | None:
    """Where the maps know no pod at all, that is what is wrong, and told by another failure mode."""
    if stop.empty:
        return None
    names = {"node": drop.node, "packets": packets(drop, leg)}
    if blame.what == "unknown_interface_from":
        said = say(
            "{node} drops {packets}: by what Calico's rules there know, {interface} is no pod's.",
            **names,
            interface=leg.source_interface,
        )
    elif blame.what == "unknown_interface_to":
        said = say(
            "{node} drops {packets}: by what Calico's rules there know, {interface} is no pod's.",
            **names,
            interface=leg.target_interface,
        )
    else:
        return None
    return Finding(told(said, rule_of(drop)), stage=stop.stage)
