"""A server bound to the loopback answers its own pod and refuses everybody else; one bound to another address than the
asked one refuses whoever asks for this."""

from ipaddress import ip_address

from engine.foreign import REFUSING
from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from engine.target import LISTENER, TRIED
from facts import Endpoint, Leg, Listener, ProbeResult


@cause(
    title="The target listens on its loopback only, or on another address",
    severity="breaks",
    one_family_suffices=True,
    remedy="Let the application listen on 0.0.0.0 (or on the pod's own address) instead of 127.0.0.1 or "
    "of an address that is not asked for.",
    after=["pod_not_running", *REFUSING],
    after_peer=REFUSING,
    at=the.leg.target_node,
    stage="target pod",
    heals_within_s=NOT_FELIX,
    leg=some(Leg, direction="forward", port_asked=True, target_inside=True),
    listener=LISTENER,
    tried=TRIED,
    endpoint=some(Endpoint, name=the.leg.target),
)
def target_listens_on_loopback(leg: Leg, listener: Listener, tried: ProbeResult, endpoint: Endpoint) -> Finding | None:
    """Where no refusal comes back either, something else stops packets, and this is what they would meet after it; but
    what a virtual machine or a sandbox listens on need not be a socket of the pod's namespace."""
    # Not answered as well: a sidecar may hand on to a loopback listener what it takes for everybody.
    if not listener.addresses or tried.answered:
        return None
    taking = [one for one in map(ip_address, listener.addresses) if not one.is_loopback]
    if any(one.is_unspecified or str(one) == leg.target_address for one in taking):
        return None
    if tried.outcome != "refused" and endpoint.own_kernel:
        return None
    if tried.outcome != "refused":
        return Finding(
            say(
                "{port}/{protocol} of {pod} is bound to {addresses} and nothing else.",
                port=leg.port,
                protocol=leg.protocol,
                pod=leg.target,
                addresses=", ".join(listener.addresses),
            ),
            severity="warns",
            stage="" if leg.target_kind == "pod" else "target node",
        )
    return Finding(
        say(
            "{port}/{protocol} of {pod} is bound to {addresses} and nothing else; a packet to {address} is refused.",
            port=leg.port,
            protocol=leg.protocol,
            pod=leg.target,
            addresses=", ".join(listener.addresses),
            address=leg.target_address,
        ),
        stage="" if leg.target_kind == "pod" else "target node",
    )
