"""The Service still sends to the address of a pod that is gone; what goes there meets the owner's blackhole."""

from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import Backend, ProbeResult


@cause(
    title="The Service sends to an address that no pod has",
    severity="breaks",
    remedy="Ask again in some seconds: a slice is rewritten after its pod. If the address stays, look at "
    "kube-controller-manager, or at who else writes the EndpointSlice (label endpointslice.kubernetes.io/managed-by).",
    at=the.backend.node,
    heals_within_s=NOT_FELIX,
    backend=some(Backend, stale=True, used=True),
    tried=some(
        ProbeResult,
        target_address=the.backend.address,
        protocol=the.backend.protocol,
        port=the.backend.port,
    ),
)
def service_endpoint_stale(backend: Backend, tried: ProbeResult) -> Text | None:
    if tried.begins or not tried.sent:
        return None
    if backend.has_now:
        return say(
            "An EndpointSlice of {service} names {address} for {pod}, which has {now}.",
            service=backend.service,
            address=backend.address,
            pod=backend.pod,
            now=backend.has_now,
        )
    return say(
        "An EndpointSlice of {service} names {address} for {pod}, which is gone; no other pod has the address.",
        service=backend.service,
        address=backend.address,
        pod=backend.pod,
    )
