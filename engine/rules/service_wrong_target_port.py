"""The Service hands on to a port on which its pod does not listen, though it listens on another: a reset comes back."""

from engine.rule import NOT_FELIX, Text, cause, listed, say, some, the
from engine.target import LISTENER, TRIED
from facts import Backend, Leg, Listener, ProbeResult


@cause(
    title="The Service's target port is one on which its pod does not listen",
    severity="breaks",
    remedy="Set the Service's targetPort to the port the application listens on, or let it listen on that one.",
    after=["pod_not_running"],
    at=the.leg.target_node,
    stage="target pod",
    heals_within_s=NOT_FELIX,
    backend=some(Backend, used=True, declared=False),
    leg=some(
        Leg,
        direction="forward",
        target_kind="pod",
        target=the.backend.endpoint,
        target_address=the.backend.address,
        protocol=the.backend.protocol,
        port=the.backend.port,
    ),
    listener=LISTENER,
    tried=TRIED,
)
def service_wrong_target_port(backend: Backend, leg: Leg, listener: Listener, tried: ProbeResult) -> Text | None:
    """Where the pod itself names the port, or listens nowhere, it is the application that is not there."""
    if listener.found or listener.other_family or not listener.other_ports or tried.outcome != "refused":
        return None
    return say(
        "{service} sends to {port}/{protocol} of {pod}, where nothing listens; it listens on {ports}. "
        "The reset that comes back seems to be the Service's own.",
        service=backend.service,
        port=backend.port,
        protocol=backend.protocol,
        pod=leg.target,
        ports=listed([str(port) for port in listener.other_ports]),
    )
