"""The path is good and the target refuses: nothing listens on the asked port."""

from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import Leg, Listener, ProbeResult


@cause(
    title="Nothing listens on that port in the target pod",
    severity="breaks",
    remedy="Look at the application: is it started, and does it listen on this port?",
    after=["pod_not_running"],
    at=the.leg.target_node,
    stage="target pod",
    heals_within_s=NOT_FELIX,
    leg=some(Leg, direction="forward", port_asked=True, target_kind="pod"),
    listener=some(Listener, node=the.leg.target_node, pod=the.leg.target, protocol=the.leg.protocol, port=the.leg.port),
    tried=some(
        ProbeResult,
        node=the.leg.source_node,
        target_address=the.leg.target_address,
        protocol=the.leg.protocol,
        port=the.leg.port,
    ),
)
def target_not_listening(leg: Leg, listener: Listener, tried: ProbeResult) -> Text | None:
    if listener.found or tried.outcome != "refused":
        return None
    return say(
        "{pod} answers {port}/{protocol} with {refusal}, and no socket in the pod listens on {port}/{protocol}.",
        pod=leg.target,
        port=leg.port,
        protocol=leg.protocol,
        refusal=say("a reset") if leg.protocol == "tcp" else say("ICMP port unreachable"),
    )
