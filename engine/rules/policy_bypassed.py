"""A packet that the policies in the API deny passed all the same: nobody notices, for nothing is lost. Only where all
policies were read, twice and the same, and the packet was met behind them under the addresses they are about."""

from engine.opinions import told
from engine.rule import HEALS_CHAIN, Finding, cause, say, some, the
from facts import Leg, PolicyBypass, PolicyOpinion, StageSighting


@cause(
    title="The kernel lets pass what the policies deny",
    severity="warns",
    remedy="Look at the log of calico-node on this node: whether it hears the API server and can write its rules. See "
    "whether somebody flushes its chains or accepts packets before they come to them (`nft list ruleset`, "
    "`iptables-save`). Restarting calico-node makes it write all of its rules anew.",
    after=["calico_node_missing", "felix_stuck", "felix_not_ready", "policy_not_enforced"],
    at=the.bypass.node,
    heals_within_s=HEALS_CHAIN,
    bypass=some(PolicyBypass),
    leg=some(Leg, flow=the.bypass.flow, direction=the.bypass.leg),
    opinion=some(PolicyOpinion, id=the.bypass.opinion),
    sighting=some(StageSighting, id=the.bypass.sighting),
)
def policy_bypassed(bypass: PolicyBypass, leg: Leg, opinion: PolicyOpinion, sighting: StageSighting) -> Finding:
    text = say(
        "by the policies in the API: {denied} And yet {node} lets it pass: a fresh packet from {source} came in by "
        "{device} of {target}.",
        denied=told(opinion),
        node=bypass.node,
        source=leg.source,
        device=sighting.device,
        target=sighting.pod,
    )
    return Finding(text, stage=bypass.stage)
