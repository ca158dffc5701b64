"""The kernel dropped the packets in the chains of the target's policies: somebody meant them not to come in."""

from engine.dropped import OF_POLICIES, beside, by_policy, packets, rule_of, told
from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from facts import Blame, Leg, RuleDrop, Stop


@cause(
    title="A policy keeps the packets out of the target pod",
    severity="breaks",
    remedy="If they are meant to pass, let a policy about the target allow them: in Calico's order, before the rule or "
    "the end of tier that drops them. Ask whoever owns the policy.",
    after=["firewall_backends_mixed", "policy_not_programmed", "policy_forgets_address_family"],
    at=the.stop.node,
    stage="target veth",
    heals_within_s=NOT_FELIX,
    stop=some(Stop),
    leg=some(Leg, flow=the.stop.flow, direction=the.stop.leg),
    drop=some(RuleDrop, id=the.stop.drop),
    blame=some(Blame, drop=the.stop.drop),
)
def policy_denies_ingress(stop: Stop, leg: Leg, drop: RuleDrop, blame: Blame) -> Finding | None:
    if (blame.endpoint, blame.direction) != ("pod", "ingress") or blame.what not in OF_POLICIES:
        return None
    said = say(
        "{node} refuses {packets} on the way into {pod}, {by}."
        if drop.verdict == "reject"
        else "{node} drops {packets} on the way into {pod}, {by}.",
        node=drop.node,
        packets=packets(drop, leg),
        pod=leg.target,
        by=by_policy(blame),
    )
    return Finding(told(said, rule_of(drop), beside(stop)), stage=stop.stage, severity="" if stop.decisive else "warns")
