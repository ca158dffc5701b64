"""A HostEndpoint makes policies speak about a node's own interfaces; what none of them allows there is dropped."""

from engine.dropped import OF_POLICIES, beside, by_policy, packets, rule_of, told
from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from facts import Blame, Leg, RuleDrop, Stop


@cause(
    title="The policies of a host endpoint drop the packets",
    severity="breaks",
    remedy="Let a policy that selects this HostEndpoint allow them: one with applyOnForward for what only passes the "
    "node, one without for what is for the node itself or comes from it.",
    after=["firewall_backends_mixed", "policy_not_programmed"],
    at=the.stop.node,
    heals_within_s=NOT_FELIX,
    stop=some(Stop),
    leg=some(Leg, flow=the.stop.flow, direction=the.stop.leg),
    drop=some(RuleDrop, id=the.stop.drop),
    blame=some(Blame, drop=the.stop.drop),
)
def host_endpoint_denies(stop: Stop, leg: Leg, drop: RuleDrop, blame: Blame) -> Finding | None:
    if blame.endpoint != "host" or blame.what not in OF_POLICIES:
        return None
    every = blame.interface == "*"
    names = {"node": drop.node, "packets": packets(drop, leg), "interface": blame.interface, "by": by_policy(blame)}
    inward = blame.direction == "ingress"
    if blame.forward:
        said = say(
            "The host endpoint of every interface of {node} drops {packets}, which pass this node, {by}."
            if every
            else "The host endpoint of {interface} on {node} drops {packets}, which pass this node, {by}.",
            **names,
        )
    elif inward:
        said = say(
            "The host endpoint of every interface of {node} drops {packets}, which come in, {by}."
            if every
            else "The host endpoint of {interface} on {node} drops {packets}, which come in, {by}.",
            **names,
        )
    else:
        said = say(
            "The host endpoint of every interface of {node} drops {packets}, which go out, {by}."
            if every
            else "The host endpoint of {interface} on {node} drops {packets}, which go out, {by}.",
            **names,
        )
    return Finding(told(said, rule_of(drop), beside(stop)), stage=stop.stage, severity="" if stop.decisive else "warns")
