"""Ways to a pod that do not begin with its address."""

from __future__ import annotations

from lab.drawing import Drawing
from lab.intent import PodRecord
from lab.kernel import FAMILIES, family_of
from lab.services import endpoint, endpoint_slice, service
from lab.variants.variant import drawn


@drawn()
def service_on_every_node(drawing: Drawing) -> None:
    """A Service, shop/db-service, has an endpoint on every node: on the client's own, elsewhere, and the client."""
    firsts = [(node, drawing.pods(node)[0]) for node in drawing.nodes if drawing.pods(node)]
    families: list[int] = []
    for family in FAMILIES:
        ends = [
            endpoint(PodRecord(pod["metadata"]["namespace"], pod["metadata"]["name"], node, one["ip"], ""))
            for node, pod in firsts
            for one in pod["status"].get("podIPs") or ()
            if family_of(one["ip"]) == family
        ]
        if ends:
            families.append(family)
            drawing.entries.append(endpoint_slice(ends, family))
    drawing.entries.append(service(*families))
