"""Calico has rules of its own beside policies, seldom met; where one of them ended the packets it is told as it is."""

from engine.dropped import packets, rule_of, told
from engine.rule import NOT_FELIX, Finding, Text, cause, say, some, the
from facts import Blame, Leg, RuleDrop, Stop


@cause(
    title="A rule of Calico's own drops the packets",
    severity="breaks",
    remedy="The rule follows from a setting of Calico or of the pod: limits of packets or connections, a disabled "
    "endpoint, tunnels that pods build themselves. Look at what it says of itself, and change that setting.",
    at=the.stop.node,
    heals_within_s=NOT_FELIX,
    stop=some(Stop),
    leg=some(Leg, flow=the.stop.flow, direction=the.stop.leg),
    drop=some(RuleDrop, id=the.stop.drop),
    blame=some(Blame, drop=the.stop.drop),
)
def calico_rule_drops(stop: Stop, leg: Leg, drop: RuleDrop, blame: Blame) -> Finding | None:
    said = _why(blame, leg, drop)
    if said is None:
        return None
    return Finding(told(said, rule_of(drop)), stage=stop.stage, severity="" if stop.decisive else "warns")


def _why(blame: Blame, leg: Leg, drop: RuleDrop) -> Text | None:
    names = {"node": drop.node, "packets": packets(drop, leg)}
    if blame.what == "endpoint_down":
        return say("{node} drops {packets}: Felix is told that the pod is disabled.", **names)
    if blame.what == "limit":
        return say("{node} drops {packets}: the pod has more packets or connections than it is allowed.", **names)
    if blame.what == "encapsulation":
        return say("{node} drops {packets}: pods are not allowed to send tunnels' packets themselves.", **names)
    if blame.what == "service_loop":
        return say("{node} drops {packets}: their target is an address of a Service that nobody took.", **names)
    if blame.what == "ipip_source":
        return say("{node} drops {packets}: it does not know their sender as a node of Calico with IPIP.", **names)
    if blame.what == "calico":
        return say("{node} drops {packets} in a chain of Calico's.", **names)
    return None
