"""A Service with its EndpointSlice, as its controllers write them; in a lab no controller does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lab.intent import Object, PodRecord
from lab.kernel import family_of
from lab.objects import APPLICATION_NAMESPACE, ECHO_PORT

if TYPE_CHECKING:
    from lab.cluster import Cluster

NAME = "db-service"
FULL_NAME = f"{APPLICATION_NAMESPACE}/{NAME}"
ADDRESSES = {4: "10.96.0.9", 6: "fd00:10:96::9"}
PORT_NAME = "echo"


def service(*families: int, port: int = ECHO_PORT, target_port: int = ECHO_PORT, local: bool = False) -> Object:
    """local: it sends a client only to endpoints on the client's own node."""
    addresses = [ADDRESSES[family] for family in families]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": APPLICATION_NAMESPACE},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": addresses[0],
            "clusterIPs": addresses,
            "ipFamilies": [f"IPv{family}" for family in families],
            "ipFamilyPolicy": "RequireDualStack" if len(families) > 1 else "SingleStack",
            "internalTrafficPolicy": "Local" if local else "Cluster",
            "selector": {"app": "db"},
            "sessionAffinity": "None",
            "ports": [{"name": PORT_NAME, "port": port, "protocol": "TCP", "targetPort": target_port}],
        },
        "status": {"loadBalancer": {}},
    }


def endpoint(pod: PodRecord, *, ready: bool = True) -> Object:
    return {
        "addresses": [pod.address],
        "conditions": {"ready": ready, "serving": ready, "terminating": False},
        "nodeName": pod.node,
        "targetRef": {"kind": "Pod", "name": pod.name, "namespace": pod.namespace},
    }


def endpoint_slice(endpoints: Iterable[Object], family: int = 4, *, port: int = ECHO_PORT) -> Object:
    """port: on which they listen."""
    found = list(endpoints)
    assert all(family_of(address) == family for one in found for address in one["addresses"])
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{NAME}-v{family}",
            "namespace": APPLICATION_NAMESPACE,
            "labels": {
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": NAME,
            },
        },
        "addressType": f"IPv{family}",
        "endpoints": found,
        "ports": [{"name": PORT_NAME, "port": port, "protocol": "TCP"}],
    }


def put(cluster: Cluster, *entries: Object) -> None:
    """The Service and its slices, instead of those the lab may have had."""
    for resource in ("services", "endpointslices"):
        for entry in cluster.listed(resource):
            meta = entry["metadata"]
            if NAME in (meta["name"], (meta.get("labels") or {}).get("kubernetes.io/service-name")):
                cluster.delete(resource, meta["name"], meta["namespace"])
    for entry in entries:
        cluster.create(entry)
