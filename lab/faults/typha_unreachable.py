"""calico-node is told to use Typha, and no pod of it is ready."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import Object
from lab.objects import SYSTEM_NAMESPACE, calico_node_name

WHERE = ("source",)  # of the whole cluster
SETTING = "FELIX_TYPHAK8SSERVICENAME"
SERVICE = "calico-typha"


def inflict(cluster: Cluster, wound: Wound) -> None:
    def use_typha(pod: Object) -> None:
        container = pod["spec"]["containers"][0]
        told = [one for one in container.get("env", ()) if one["name"] != SETTING]
        container["env"] = [*told, {"name": SETTING, "value": SERVICE}]

    for node in (wound.node, wound.peer):
        cluster.change("pods", calico_node_name(node), use_typha, SYSTEM_NAMESPACE)
    cluster.create(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{SERVICE}-2xk8p",
                "namespace": SYSTEM_NAMESPACE,
                "labels": {"kubernetes.io/service-name": SERVICE},
            },
            "addressType": "IPv4",
            "ports": [{"name": "calico-typha", "port": 5473, "protocol": "TCP"}],
            "endpoints": [
                {
                    "addresses": [cluster.node_address(wound.node)],
                    "conditions": {"ready": False, "serving": False, "terminating": False},
                }
            ],
        }
    )
