"""kube-proxy itself drops or refuses what is for a Service: whoever asks is not allowed, or it does not know what the
API knows of the Service."""

from engine.dropped import rule_of, told
from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from facts import Blame, RuleDrop, ServicePort

WORDS = {
    "source_range": "{node} refuses what {source} sends to {service} ({address}): the Service's "
    "loadBalancerSourceRanges do not name it.",
    "no_endpoints": "{node} refuses what is for {service} ({address}) because no endpoint is known there, though the "
    "API counts {ready} as ready.",
    "no_local_endpoints": "{node} drops what is for {service} ({address}) because no endpoint on it is known there, "
    "though the API counts {ready} as ready.",
    "wrong_port": "{node} refuses what is for port {port} of {service} ({address}), which is not known there, though "
    "the API has it.",
    "unallocated": "{node} refuses what is for {address}, which is not known there as a Service's, though the API has "
    "{service} with it.",
}
SAID = (
    "service_without_endpoints", "service_local_policy_without_endpoint", "service_wrong_port",
    "service_wrong_target_port",
)  # fmt: skip


@cause(
    title="kube-proxy refuses packets to the Service",
    severity="breaks",
    remedy="If the Service's loadBalancerSourceRanges are meant, ask from an address within them. Else look at the log "
    "of kube-proxy on this node: whether it hears the API server and can write its rules; and whether rules of an "
    "older kube-proxy are left in another backend of iptables. Restarting it makes it read everything anew.",
    after=SAID,
    after_peer=SAID,
    at=the.blame.node,
    heals_within_s=NOT_FELIX,
    blame=some(Blame, what="kube_proxy"),
    drop=some(RuleDrop, id=the.blame.drop),
    service=some(
        ServicePort,
        address=the.blame.target_address,
        protocol=the.drop.protocol,
        port=the.drop.port,
        found=True,
    ),
)
def kube_proxy_refuses(blame: Blame, drop: RuleDrop, service: ServicePort) -> Finding | None:
    if blame.why not in WORDS or not _known_better(blame.why, drop.node, service):
        return None
    said = say(
        WORDS[blame.why],
        node=drop.node,
        source=drop.source_address,
        service=service.service,
        address=service.address,
        port=service.port,
        ready=service.ready,
    )
    return Finding(told(said, rule_of(drop)))


def _known_better(why: str, node: str, service: ServicePort) -> bool:
    """Does the API know an endpoint where kube-proxy knows none? It may be right, or nobody could count them."""
    if why == "no_endpoints":
        return service.counted and service.ready + service.serving > 0
    if why == "no_local_endpoints":
        return service.counted and node in service.nodes
    return True
