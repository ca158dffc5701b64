"""The pod's status names another address than the pod has: Felix routes that one."""

from __future__ import annotations

from ipaddress import IPv4Network

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import Object

WHERE = ("source", "target")


def inflict(cluster: Cluster, wound: Wound) -> None:
    pod = cluster.pod(wound.pod)
    wrong = str(IPv4Network(cluster.block(wound.node))[-1])

    def edit(found: Object) -> None:
        found["status"].update(podIP=wrong, podIPs=[{"ip": wrong}])

    cluster.change("pods", pod.name, edit, pod.namespace)
