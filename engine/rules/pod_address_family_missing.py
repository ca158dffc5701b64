"""Kubernetes knows only one of a dual stack pod's addresses: Felix writes no route for the other, and it is dead."""

from engine.rule import HEALS_NEVER, Finding, cause, say, some, the
from facts import Endpoint, Question, Text


@cause(
    title="One of the pod's addresses is missing in its status",
    severity="degrades",
    remedy="Recreate the pod. If the new one lacks the address as well, look at its node's kubelet and container "
    "runtime: status.podIPs is what they report, and Felix believes it.",
    at=the.endpoint.node,
    heals_within_s=HEALS_NEVER,
    endpoint=some(Endpoint, kind="pod", host_network=False),
    question=some(Question),
    source=some(Endpoint, name=the.question.source),
    target=some(Endpoint, name=the.question.target),
)
def pod_address_family_missing(
    endpoint: Endpoint, question: Question, source: Endpoint, target: Endpoint
) -> Text | Finding | None:
    """An address that CNI gave the pod and that its status does not name. A peer that has none of its family does not
    miss it."""
    other = source if endpoint.name == target.name else target
    if endpoint.name not in (source.name, target.name) or endpoint.phase != "Running" or endpoint.terminating:
        return None
    mine, theirs = _families(endpoint.addresses), _families((*other.addresses, *other.annotated))
    for family in sorted(_families(endpoint.annotated) - mine):
        if not mine or family not in theirs or question.family not in (0, family):
            continue
        lost = next(address for address in endpoint.annotated if _family(address) == family)
        text = say(
            "{pod} was given {lost}, but its status names only {named}: no node has a route to {lost}.",
            pod=endpoint.name,
            lost=lost,
            named=", ".join(endpoint.addresses),
        )
        alone = question.family == family or not mine & theirs
        return Finding(text, severity="breaks") if alone else text
    return None


def _families(addresses: tuple[str, ...]) -> set[int]:
    return {_family(address) for address in addresses if address}


def _family(address: str) -> int:
    return 6 if ":" in address else 4
