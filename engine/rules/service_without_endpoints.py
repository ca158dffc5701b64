"""Behind the Service's address is nobody who could answer: no endpoint of it is ready."""

from engine.rule import NOT_FELIX, Finding, Text, cause, listed, say, some, the
from facts import ProbeResult, ServicePort


@cause(
    title="No endpoint of the Service is ready",
    severity="breaks",
    remedy="Look at the pods behind the Service: do any have the labels it selects, and are they ready?",
    heals_within_s=NOT_FELIX,
    service=some(ServicePort, found=True, counted=True, headless=False),
    tried=some(
        ProbeResult,
        target_address=the.service.address,
        protocol=the.service.protocol,
        port=the.service.port,
    ),
)
def service_without_endpoints(service: ServicePort, tried: ProbeResult) -> Text | Finding | None:
    if service.ready or service.serving or not tried.sent:
        return None
    if tried.begins:
        said = say(
            "No endpoint of {service} is ready, and yet {address} answers: not kube-proxy sees to this address.",
            service=service.service,
            address=service.address,
        )
        return Finding(said, severity="warns")
    return say(
        "{address} leads nowhere: {endpoints}.",
        address=service.address,
        endpoints=_endpoints(service),
    )


def _endpoints(service: ServicePort) -> Text:
    if service.waiting:
        return say(
            "{service} has endpoints, and none is ready ({waiting})",
            service=service.service,
            waiting=listed(service.waiting),
        )
    if service.selector:
        return say(
            "{service} has no endpoint on {port}/{protocol}; it selects pods by {selector}",
            service=service.service,
            port=service.port,
            protocol=service.protocol,
            selector=service.selector,
        )
    return say(
        "{service} has no endpoint on {port}/{protocol}, and selects no pods: somebody else is to write its endpoints",
        service=service.service,
        port=service.port,
        protocol=service.protocol,
    )
