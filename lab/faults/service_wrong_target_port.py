"""The target pod stands behind a Service that hands on to a port on which the pod does not listen."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.services import FULL_NAME, endpoint, endpoint_slice, put, service

WHERE = ("target",)
FAMILIES = (4, 6)
NOBODYS_PORT = 9999


def inflict(cluster: Cluster, wound: Wound) -> dict[str, str]:
    pod = cluster.pod(wound.pod, wound.family)
    put(
        cluster,
        service(wound.family, target_port=NOBODYS_PORT),
        endpoint_slice([endpoint(pod)], wound.family, port=NOBODYS_PORT),
    )
    return {"target": FULL_NAME}
