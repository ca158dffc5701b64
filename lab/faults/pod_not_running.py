"""The pod was evicted: the object says Failed, its interface and its address are gone."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import Object
from lab.objects import container_id

WHERE = ("source", "target")
MESSAGE = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 92Mi. "


def inflict(cluster: Cluster, wound: Wound) -> None:
    pod = cluster.pod(wound.pod)
    now = cluster.now()

    def evict(found: Object) -> None:
        found["metadata"]["annotations"].update({"cni.projectcalico.org/podIP": "", "cni.projectcalico.org/podIPs": ""})
        status = found["status"]
        status.update(phase="Failed", reason="Evicted", message=MESSAGE)
        for condition in status["conditions"]:
            if condition["type"] in ("Ready", "ContainersReady"):
                condition.update(status="False", reason="PodFailed", lastTransitionTime=now)
        for container in status["containerStatuses"]:
            container.update(ready=False, started=False)
            container["state"] = {
                "terminated": {"exitCode": 137, "reason": "Error", "finishedAt": now, "startedAt": status["startTime"]}
            }

    cluster.close_listeners(wound.pod)
    cluster.change("pods", pod.name, evict, pod.namespace)
    cluster.free_address(pod.address, container_id(pod.namespace, pod.name))
    cluster.topology.remove_pod_interface(wound.pod)
