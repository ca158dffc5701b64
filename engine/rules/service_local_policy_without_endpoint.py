"""Of the Service's endpoints a node serves its own only, and this node has none: packets are dropped."""

from engine.rule import NOT_FELIX, Finding, Text, cause, listed, say, some, the
from facts import ProbeResult, ServicePort


@cause(
    title="The Service only serves a node's own pods, and this node has no endpoint",
    severity="breaks",
    remedy="Run an endpoint on every node that is to be asked (a DaemonSet), or set the traffic policy to Cluster.",
    at=the.service.node,
    heals_within_s=NOT_FELIX,
    service=some(ServicePort, found=True, counted=True, headless=False, local=True),
    tried=some(
        ProbeResult,
        target_address=the.service.address,
        protocol=the.service.protocol,
        port=the.service.port,
    ),
)
def service_local_policy_without_endpoint(service: ServicePort, tried: ProbeResult) -> Text | Finding | None:
    """No endpoint anywhere is another matter; one whose node nobody names may be here."""
    if not service.nodes or "" in service.nodes or service.node in service.nodes or not tried.sent:
        return None
    said = say(
        "{service} has externalTrafficPolicy Local, and its endpoints are on {nodes}, none on {node}."
        if service.by_node_port
        else "{service} has internalTrafficPolicy Local, and its endpoints are on {nodes}, none on {node}.",
        service=service.service,
        nodes=listed(service.nodes),
        node=service.node,
    )
    if not tried.answered:
        return said
    # What comes to a nodePort under a pod's own address is served as from inside.
    return None if service.by_node_port else Finding(said, severity="warns")
