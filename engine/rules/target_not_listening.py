"""The path is good and the target refuses: nothing listens on the asked port."""

from engine.foreign import REFUSING
from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from engine.target import LISTENER, TRIED
from facts import Endpoint, Leg, Listener, ProbeResult


@cause(
    title="Nothing listens on that port of the target",
    severity="breaks",
    one_family_suffices=True,
    remedy="Look at the application: is it started, and does it listen on this port?",
    after=["pod_not_running", "service_wrong_target_port", *REFUSING],
    after_peer=REFUSING,
    at=the.leg.target_node,
    stage="target pod",
    heals_within_s=NOT_FELIX,
    leg=some(Leg, direction="forward", port_asked=True, target_inside=True),
    listener=LISTENER,
    tried=TRIED,
    endpoint=some(Endpoint, name=the.leg.target),
)
def target_not_listening(leg: Leg, listener: Listener, tried: ProbeResult, endpoint: Endpoint) -> Finding | None:
    """Where no refusal comes back either, something else stops packets, and this is what they would meet after it; but
    what a virtual machine or a sandbox listens on need not be a socket of the pod's namespace."""
    if listener.found or tried.answered:
        return None
    if tried.outcome != "refused" and endpoint.own_kernel:
        return None
    if tried.outcome != "refused":
        return Finding(
            say(
                "No socket in {pod} listens on {port}/{protocol} for IPv{family}."
                if listener.other_family
                else "No socket in {pod} listens on {port}/{protocol}.",
                family=leg.family,
                pod=leg.target,
                port=leg.port,
                protocol=leg.protocol,
            ),
            severity="warns",
            stage="" if leg.target_kind == "pod" else "target node",
        )
    refused = say(
        "{pod} answers {port}/{protocol} with {refusal}, and what listens there on {port}/{protocol} takes IPv{other} "
        "only ({addresses})."
        if listener.other_family
        else "{pod} answers {port}/{protocol} with {refusal}, and nothing there listens on {port}/{protocol}.",
        other=10 - leg.family,
        addresses=", ".join(listener.other_family),
        pod=leg.target,
        port=leg.port,
        protocol=leg.protocol,
        refusal=say("a reset") if leg.protocol == "tcp" else say("ICMP port unreachable"),
    )
    return Finding(refused, stage="" if leg.target_kind == "pod" else "target node")
