"""A firewall of the node's own, beside Calico's, drops what it should only pass on between pods."""

from engine.dropped import rule_of, told
from engine.foreign import beside, ended, of_node_itself, of_others, owner_of, severity, up_to
from engine.rule import NOT_FELIX, Finding, cause, some, the
from facts import Blame, Leg, RuleDrop, Stop


@cause(
    title="The node's own firewall drops what the node passes on",
    severity="breaks",
    remedy="Let the pools' networks pass in whatever program wrote the rule: with firewalld put them and cali+ into a "
    "zone that is trusted, with ufw allow routed traffic, with Docker accept them in DOCKER-USER; or take the rule "
    "away. Felix accepts by itself only what comes after its own chains, and touches no rule of others.",
    at=the.stop.node,
    heals_within_s=NOT_FELIX,
    stop=some(Stop),
    leg=some(Leg, flow=the.stop.flow, direction=the.stop.leg),
    drop=some(RuleDrop, id=the.stop.drop),
    blame=some(Blame, drop=the.stop.drop),
)
def host_firewall_drops_forward(stop: Stop, leg: Leg, drop: RuleDrop, blame: Blame) -> Finding | None:
    if not of_others(blame, drop) or drop.outer or of_node_itself(drop, leg):
        return None
    text = told(ended(drop, leg), rule_of(drop), owner_of(blame, drop), beside(stop), up_to(drop))
    return Finding(text, stage=stop.stage, severity=severity(stop, drop))
