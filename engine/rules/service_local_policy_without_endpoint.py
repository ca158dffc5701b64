"""The Service serves each node from its own endpoints only, and the client's node has none: its packets are dropped."""

from engine.rule import NOT_FELIX, Finding, Text, cause, listed, say, some, the
from facts import ProbeResult, ServicePort


@cause(
    title="The Service only serves a node's own pods, and the client's node has no endpoint",
    severity="breaks",
    remedy="Run an endpoint on every node that has clients (a DaemonSet), or set internalTrafficPolicy: Cluster.",
    at=the.tried.node,
    heals_within_s=NOT_FELIX,
    service=some(ServicePort, found=True, counted=True, headless=False, internal_policy="Local"),
    tried=some(
        ProbeResult,
        target_address=the.service.address,
        protocol=the.service.protocol,
        port=the.service.port,
    ),
)
def service_local_policy_without_endpoint(service: ServicePort, tried: ProbeResult) -> Text | Finding | None:
    """No endpoint anywhere is another matter; one whose node nobody names may be here."""
    if not service.nodes or "" in service.nodes or tried.node in service.nodes or not tried.sent:
        return None
    said = say(
        "{service} has internalTrafficPolicy Local, and its endpoints are on {nodes}, none on {node}.",
        service=service.service,
        nodes=listed(service.nodes),
        node=tried.node,
    )
    return Finding(said, severity="warns") if tried.answered else said
