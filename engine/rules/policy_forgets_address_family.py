"""A policy whose rules name networks of one address family only cuts the other family of every pod it selects."""

from engine.dropped import packets, policy_named, rule_of, told
from engine.rule import NOT_FELIX, Finding, cause, joined, say, some, the
from facts import Blame, Leg, RuleDrop, Stop


@cause(
    title="A policy lets the packets pass over one address family only",
    severity="breaks",
    remedy="Give the policy's rule the networks of the other address family, too, or take the other family from the "
    "pods. A rule with networks of one family says nothing about the other, and what no rule allows is dropped.",
    after=["policy_not_programmed"],
    at=the.stop.node,
    heals_within_s=NOT_FELIX,
    stop=some(Stop),
    leg=some(Leg, flow=the.stop.flow, direction=the.stop.leg),
    drop=some(RuleDrop, id=the.stop.drop),
    blame=some(Blame, drop=the.stop.drop),
)
def policy_forgets_address_family(stop: Stop, leg: Leg, drop: RuleDrop, blame: Blame) -> Finding | None:
    """Only where the policies were read and the same packets over the other family are allowed by such a rule."""
    if blame.endpoint != "pod" or not stop.forgets:
        return None
    said = say(
        "{node} drops {packets} over IPv{family} at the end of tier {tier}: {policies} allows the same over IPv{other} "
        "only, by a rule that names no network of IPv{family}.",
        node=drop.node,
        packets=packets(drop, leg),
        family=leg.family,
        other=10 - leg.family,
        tier=blame.tier,
        policies=joined(map(policy_named, stop.forgets)),
    )
    return Finding(told(said, rule_of(drop)), stage=stop.stage, severity="" if stop.decisive else "warns")
