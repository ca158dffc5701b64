"""A pod's network has a firewall of its own: rules that a sidecar, an init container or somebody by hand left there are
met by the pod's packets alone, and no node and no policy knows of them."""

from engine.dropped import packets, rule_of, told
from engine.foreign import beside, severity, up_to
from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from facts import Leg, RuleDrop, Stop


@cause(
    title="A firewall inside the pod drops the packets",
    severity="breaks",
    remedy="The rule stands in the pod's own network. Look for what may write there: a service mesh's or a VPN's "
    "container with NET_ADMIN, the application, somebody by hand. What was written by hand is gone when the pod is "
    "made anew.",
    at=the.stop.node,
    heals_within_s=NOT_FELIX,
    stop=some(Stop),
    leg=some(Leg, flow=the.stop.flow, direction=the.stop.leg),
    drop=some(RuleDrop, id=the.stop.drop),
)
def pod_firewall_drops(stop: Stop, leg: Leg, drop: RuleDrop) -> Finding | None:
    if not drop.pod:
        return None
    said = say(
        "inside {pod} a rule refuses {packets}."
        if drop.verdict == "reject"
        else "inside {pod} a rule drops {packets}.",
        pod=drop.pod,
        packets=packets(drop, leg),
    )
    text = told(said, rule_of(drop), beside(stop), up_to(drop))
    return Finding(text, stage=stop.stage, severity=severity(stop, drop))
