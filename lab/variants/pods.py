"""Pods in every stage of their lives beside the asked ones."""

from __future__ import annotations

import copy

from lab.drawing import Drawing
from lab.objects import APPLICATION_NAMESPACE, ECHO_PORT, container_id, handle_of, running_pod, scheduled_pod
from lab.variants.variant import drawn

VIRTUAL = "10.77.0."  # addresses nobody in the lab has


@drawn()
def completed_pod(drawing: Drawing) -> None:
    """A finished pod still shows the address that another pod has by now."""
    first = drawing.pods(drawing.nodes[0])[0]
    done = copy.deepcopy(first)
    done["metadata"]["name"] = "migration"
    done["metadata"]["labels"] = {"app": "migration"}
    done["status"]["phase"] = "Succeeded"
    for condition in done["status"]["conditions"]:
        if condition["type"] in ("Ready", "ContainersReady"):
            condition.update(status="False", reason="PodCompleted")
    for container in done["status"]["containerStatuses"]:
        container.update(ready=False, state={"terminated": {"exitCode": 0, "reason": "Completed"}})
    drawing.entries.append(done)


@drawn()
def restarted_stateful_pod(drawing: Drawing) -> None:
    """A StatefulSet's pod was made anew under its old name: its address has another container's handle than before."""
    pod = drawing.pods(drawing.nodes[0])[0]
    meta = pod["metadata"]
    fresh = container_id(meta["namespace"], f"{meta['name']} again")
    meta["ownerReferences"] = [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "cart", "uid": "0"}]
    meta["annotations"]["cni.projectcalico.org/containerID"] = fresh
    former = handle_of(container_id(meta["namespace"], meta["name"]))
    for block in drawing.all("IPAMBlock"):
        for attribute in block["spec"]["attributes"]:
            if attribute.get("handle_id") == former:
                attribute["handle_id"] = handle_of(fresh)
    for handle in drawing.all("IPAMHandle"):
        if handle["spec"]["handleID"] == former:
            handle["spec"]["handleID"] = handle["metadata"]["name"] = handle_of(fresh)


@drawn()
def pod_being_created(drawing: Drawing) -> None:
    """A pod has a node and no address yet."""
    pod = scheduled_pod(APPLICATION_NAMESPACE, "young", node=drawing.nodes[-1], time=drawing.time)
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    pod["status"] = {
        "phase": "Pending",
        "conditions": [
            {"lastProbeTime": None, "lastTransitionTime": drawing.time, "status": "True", "type": "PodScheduled"}
        ],
        "containerStatuses": [
            {
                "image": "registry.example/app:1",
                "imageID": "",
                "lastState": {},
                "name": "app",
                "ready": False,
                "restartCount": 0,
                "started": False,
                "state": waiting,
            }
        ],
        "qosClass": "BestEffort",
    }
    drawing.entries.append(pod)


@drawn()
def pod_being_deleted(drawing: Drawing) -> None:
    """A pod is leaving: its network is torn down, its object is still there with its old address."""
    leaving = copy.deepcopy(drawing.pods(drawing.nodes[-1])[-1])
    leaving["metadata"]["name"] = "leaving"
    leaving["metadata"]["deletionTimestamp"] = drawing.time
    leaving["metadata"]["deletionGracePeriodSeconds"] = 30
    leaving["metadata"]["finalizers"] = ["example.org/keep"]
    leaving["metadata"]["annotations"].update({"cni.projectcalico.org/podIP": "", "cni.projectcalico.org/podIPs": ""})
    drawing.entries.append(leaving)


@drawn()
def host_network_pods(drawing: Drawing) -> None:
    """Every node has a pod on the node's own network."""
    for number, node in enumerate(drawing.nodes):
        addresses = [drawing.node_address(number, family) for family in drawing.sketch.families]
        pod = running_pod(
            APPLICATION_NAMESPACE,
            f"agent-{number + 1}",
            node=node,
            node_address=addresses[0],
            address=addresses[0],
            further=addresses[1:],
            time=drawing.time,
        )
        pod["metadata"]["annotations"] = {}
        pod["spec"]["hostNetwork"] = True
        pod["spec"]["containers"][0]["ports"][0]["hostPort"] = ECHO_PORT
        drawing.entries.append(pod)


@drawn()
def virtual_nodes(drawing: Drawing) -> None:
    """Nodes that are no machines (Fargate, virtual-kubelet) have pods, and neither Calico nor a probe."""
    of = {"fargate-1": {"eks.amazonaws.com/compute-type": "fargate"}, "virtual-kubelet": {"type": "virtual-kubelet"}}
    for number, (name, labels) in enumerate(of.items()):
        address = f"{VIRTUAL}{number + 1}"
        node = copy.deepcopy(drawing.one("Node", drawing.nodes[0]))
        node["metadata"].update(name=name, annotations={}, labels={**node["metadata"]["labels"], **labels})
        node["status"]["addresses"] = [{"address": address, "type": "InternalIP"}]
        pod = running_pod(
            APPLICATION_NAMESPACE, f"on-{name}", node=name, node_address=address, address=address, time=drawing.time
        )
        pod["metadata"]["annotations"] = {}
        drawing.entries += [node, pod]
