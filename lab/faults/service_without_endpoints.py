"""The asked pods stand behind a Service, and the only one there is not ready."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.services import FULL_NAME, endpoint, endpoint_slice, put, service

WHERE = ("target",)
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> dict[str, str]:
    pod = cluster.pod(wound.pod, wound.family)
    put(cluster, service(wound.family), endpoint_slice([endpoint(pod, ready=False)], wound.family))
    return {"target": FULL_NAME}
