"""A Service still names the address of a pod that is gone; the block of the target's node has it as free."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from lab.cluster import Cluster
from lab.faults import Wound
from lab.services import FULL_NAME, endpoint, endpoint_slice, put, service

WHERE = ("target",)
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> dict[str, str]:
    address = str(ip_network(cluster.block(wound.node, wound.family))[-2])
    gone = replace(cluster.pod(wound.pod, wound.family), name="gone", address=address)
    put(cluster, service(wound.family), endpoint_slice([endpoint(gone)], wound.family))
    return {"target": FULL_NAME}
