"""The target pod stands behind a Service that is asked on its pod's port, not on its own."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.services import FULL_NAME, endpoint, endpoint_slice, put, service

WHERE = ("target",)
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> dict[str, str]:
    put(
        cluster,
        service(wound.family, port=80),
        endpoint_slice([endpoint(cluster.pod(wound.pod, wound.family))], wound.family),
    )
    return {"target": FULL_NAME}
