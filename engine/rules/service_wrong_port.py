"""The Service is asked on a port it does not have: silence or a refusal, depending on kube-proxy's mode."""

from engine.rule import NOT_FELIX, Finding, Text, cause, listed, say, some, the
from facts import ProbeResult, ServicePort


@cause(
    title="The Service has no such port",
    severity="breaks",
    remedy="Use a port of the Service (its own, not the pod's), or add this one to it.",
    heals_within_s=NOT_FELIX,
    service=some(ServicePort, found=False, headless=False),
    tried=some(
        ProbeResult,
        target_address=the.service.address,
        protocol=the.service.protocol,
        port=the.service.port,
    ),
)
def service_wrong_port(service: ServicePort, tried: ProbeResult) -> Text | Finding | None:
    if not tried.sent:
        return None
    said = say(
        "{service} has no port {port}/{protocol}; it has {ports}.",
        service=service.service,
        port=service.port,
        protocol=service.protocol,
        ports=listed(service.ports),
    )
    return Finding(said, severity="warns") if tried.answered else said
