"""The kernel dropped the packets in the chains of the source's policies: somebody meant it not to send them."""

from engine.dropped import OF_POLICIES, beside, by_policy, packets, rule_of, told
from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from facts import Blame, Leg, RuleDrop, Stop


@cause(
    title="A policy keeps the packets inside the source pod",
    severity="breaks",
    remedy="If they are meant to pass, let a policy about the source allow them: in Calico's order, before the rule or "
    "the end of tier that drops them. Ask whoever owns the policy.",
    after=["firewall_backends_mixed", "policy_not_programmed", "policy_forgets_address_family"],
    at=the.stop.node,
    stage="source veth",
    heals_within_s=NOT_FELIX,
    stop=some(Stop),
    leg=some(Leg, flow=the.stop.flow, direction=the.stop.leg),
    drop=some(RuleDrop, id=the.stop.drop),
    blame=some(Blame, drop=the.stop.drop),
)
def policy_denies_egress(stop: Stop, leg: Leg, drop: RuleDrop, blame: Blame) -> Finding | None:
    if (blame.endpoint, blame.direction) != ("pod", "egress") or blame.what not in OF_POLICIES:
        return None
    said = say(
        "{node} refuses {packets} on the way out of {pod}, {by}."
        if drop.verdict == "reject"
        else "{node} drops {packets} on the way out of {pod}, {by}.",
        node=drop.node,
        packets=packets(drop, leg),
        pod=leg.source,
        by=by_policy(blame),
    )
    return Finding(told(said, rule_of(drop), beside(stop)), stage=stop.stage, severity="" if stop.decisive else "warns")
