"""Felix routes the address Kubernetes knows; when the pod itself has another one, nothing reaches it."""

from engine.rule import HEALS_NEVER, Text, cause, say, some, the
from engine.sender import INTERFACE
from facts import Endpoint, Leg, PodInterface


@cause(
    title="The pod has another address than Kubernetes believes",
    severity="breaks",
    remedy="Recreate the pod. If new pods disagree too, another CNI plugin or a chained one sets their addresses.",
    after=["pod_not_running", "pod_ipv6_disabled"],
    at=the.leg.source_node,
    stage="source pod",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, source_kind="pod"),
    endpoint=some(Endpoint, name=the.leg.source),
    interface=INTERFACE,
)
def pod_address_disagrees(leg: Leg, endpoint: Endpoint, interface: PodInterface) -> Text | None:
    """Whatever device inside has the address answers for it. A virtual machine or a sandbox may take it for itself."""
    inside = [address.split("/")[0] for address in interface.pod_addresses if not address.startswith("fe80:")]
    if leg.source_address in inside or interface.pod_holder or (endpoint.own_kernel and not inside):
        return None
    disagree = say(
        "status.podIP of {pod} is {address}, so {node} routes that; inside, {device} has {addresses}",
        pod=leg.source,
        address=leg.source_address,
        node=interface.node,
        device=interface.pod_device or say("its interface"),
        addresses=", ".join(inside) or say("no address"),
    )
    if not endpoint.annotated or leg.source_address in endpoint.annotated:
        return say("{disagree}.", disagree=disagree)
    return say("{disagree}, and CNI wrote {written} on it.", disagree=disagree, written=", ".join(endpoint.annotated))
