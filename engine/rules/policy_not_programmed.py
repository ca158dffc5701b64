"""Felix follows a change of policies within a second; where it does not, rules of policies that are gone go on dropping
packets. Only where the policies in the API, all of them read, let a packet pass that a rule made of policies drops."""

from engine.rule import HEALS_CHAIN, Finding, cause, say, some, the
from facts import Blame, Leg, RuleDrop, Stop

OF_POLICIES = ("policy", "end_of_tier")


@cause(
    title="Felix has not programmed the policies as they are",
    severity="breaks",
    remedy="Look at the log of calico-node on this node: whether it hears the API server and can write its rules. "
    "Restarting it makes it read all policies anew. If the rule stays, somebody else has written it.",
    after=["firewall_backends_mixed"],
    at=the.stop.node,
    heals_within_s=HEALS_CHAIN,
    stop=some(Stop),
    leg=some(Leg, flow=the.stop.flow, direction=the.stop.leg),
    drop=some(RuleDrop, id=the.stop.drop),
    blame=some(Blame, drop=the.stop.drop),
)
def policy_not_programmed(stop: Stop, leg: Leg, drop: RuleDrop, blame: Blame) -> Finding | None:
    if blame.what not in OF_POLICIES or stop.opinion != "allow":
        return None
    text = say(
        "a rule of {chain} on {node} drops {packet} from {source} to {target}, and the policies in the API let it "
        "pass: the rule is older than they are.",
        chain=drop.chain,
        node=drop.node,
        packet=f"{drop.protocol} {drop.port}" if drop.port else drop.protocol,
        source=leg.source,
        target=leg.target,
    )
    return Finding(text, stage=stop.stage)
