"""kube-proxy on the asking pod's node hears nothing any more: to it the target's Service still has no endpoint."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.services import FULL_NAME, endpoint, endpoint_slice, put, service

WHERE = ("source",)
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> dict[str, str]:
    wanted = service(wound.family)
    put(cluster, wanted, endpoint_slice([], wound.family))
    cluster.put_kube_proxy_to_sleep(wound.node)
    put(cluster, wanted, endpoint_slice([endpoint(cluster.pod(wound.other, wound.family))], wound.family))
    return {"target": FULL_NAME}
