"""Felix routes the address Kubernetes knows; when the pod itself has another one, nothing reaches it."""

from engine.rule import HEALS_NEVER, cause, some, the
from facts import Endpoint, Leg, PodInterface


@cause(
    title="The pod has another address than Kubernetes believes",
    severity="breaks",
    remedy="Recreate the pod. If new pods disagree too, another CNI plugin or a chained one sets their addresses.",
    after=["pod_not_running"],
    at=the.leg.source_node,
    stage="source pod",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, source_kind="pod"),
    endpoint=some(Endpoint, name=the.leg.source),
    interface=some(
        PodInterface,
        node=the.leg.source_node,
        pod=the.leg.source,
        family=the.leg.family,
        interface=the.leg.source_interface,
        found=True,
        entered=True,
    ),
)
def pod_address_disagrees(leg: Leg, endpoint: Endpoint, interface: PodInterface) -> str | None:
    inside = [address.split("/")[0] for address in interface.pod_addresses]
    if leg.source_address in inside:
        return None
    has = ", ".join(inside) or "no address"
    wrote = ", ".join(endpoint.annotated)
    cni = f", and CNI wrote {wrote} on it" if wrote and leg.source_address not in endpoint.annotated else ""
    return (
        f"status.podIP of {leg.source} is {leg.source_address}, so {interface.node} routes that; "
        f"inside, {interface.pod_device or 'its interface'} has {has}{cni}."
    )
