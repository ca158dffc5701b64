"""Calico can be told to drop what pods send to their own node (defaultEndpointToHostAction); other nodes answer."""

from engine.dropped import packets, rule_of, told
from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from facts import Blame, Leg, RuleDrop, Stop


@cause(
    title="Calico keeps pods from their own node",
    severity="breaks",
    remedy="Set defaultEndpointToHostAction in FelixConfiguration to Accept, or to Return where the node's own "
    "firewall is to decide; or allow what is needed in an egress policy and keep Drop for the rest.",
    at=the.stop.node,
    stage="source node",
    heals_within_s=NOT_FELIX,
    stop=some(Stop),
    leg=some(Leg, flow=the.stop.flow, direction=the.stop.leg),
    drop=some(RuleDrop, id=the.stop.drop),
    blame=some(Blame, drop=the.stop.drop),
)
def pod_to_own_node_denied(stop: Stop, leg: Leg, drop: RuleDrop, blame: Blame) -> Finding | None:
    if blame.what != "own_host":
        return None
    said = say(
        "{node} drops {packets}: defaultEndpointToHostAction tells Calico to drop what pods send to their own node.",
        node=drop.node,
        packets=packets(drop, leg),
    )
    return Finding(told(said, rule_of(drop)), stage=stop.stage)
