"""The target pod stands behind a Service that serves each node from its own pods only; the source is elsewhere."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.services import FULL_NAME, endpoint, endpoint_slice, put, service

WHERE = ("source",)
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> dict[str, str]:
    put(
        cluster,
        service(wound.family, local=True),
        endpoint_slice([endpoint(cluster.pod(wound.target, wound.family))], wound.family),
    )
    return {"target": FULL_NAME}
