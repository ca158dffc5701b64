"""A firewall of the node's own drops what is for a Service before kube-proxy has made an endpoint's address of it: each
endpoint answers, and the Service does not."""

from engine.dropped import rule_of, told
from engine.foreign import of_others, owner_of
from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from facts import Blame, RuleDrop, ServicePort

ON_THE_WAY = ("host_firewall_drops_forward", "host_firewall_drops_local", "host_firewall_drops_vxlan")


@cause(
    title="The node's own firewall drops what is for the Service",
    severity="breaks",
    remedy="Let the network of the Services' addresses pass in whatever program wrote the rule, or take the rule away. "
    "kube-proxy and the Service's endpoints are not what is to be looked at: the packets do not come so far.",
    after=ON_THE_WAY,
    at=the.blame.node,
    heals_within_s=NOT_FELIX,
    blame=some(Blame, what="foreign"),
    drop=some(RuleDrop, id=the.blame.drop),
    service=some(
        ServicePort,
        address=the.blame.target_address,
        protocol=the.drop.protocol,
        port=the.drop.port,
        found=True,
    ),
)
def host_firewall_drops_service(blame: Blame, drop: RuleDrop, service: ServicePort) -> Finding | None:
    """What drops an endpoint's packets as well is told of these."""
    if not of_others(blame, drop) or drop.reply or drop.partly:
        return None
    said = say(
        "{node} refuses what {source} sends to {service} ({address})."
        if drop.verdict == "reject"
        else "{node} drops what {source} sends to {service} ({address}).",
        node=drop.node,
        source=drop.source_address,
        service=service.service,
        address=service.address,
    )
    return Finding(told(said, rule_of(drop), owner_of(blame, drop)))
