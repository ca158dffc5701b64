"""The API objects a lab starts from, shaped as Calico writes them; without it a lab would need a recording."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from lab.apiserver.calico_definitions import Group
from lab.errors import LabError
from lab.intent import Object
from lab.kernel import family_of
from lab.sketch import node_name

CALICO_VERSION = "v3.32.1"
POD_NAMES = (("cart", "web"), ("db", "queue"), ("mail", "search"))
APPLICATION_NAMESPACE = "shop"
SYSTEM_NAMESPACE = "kube-system"
ECHO_PORT = 8080
EXTRA_PORTS = {"shop/db": (5432,)}
CALICO_GROUP: Group = "crd.projectcalico.org"


def recorded(directory: Path) -> list[Object]:
    """The objects of a recording: DIRECTORY/k8s/*.json and DIRECTORY/cr/*.json, each a List. Raises LabError."""
    files = [*sorted(directory.glob("k8s/*.json")), *sorted(directory.glob("cr/*.json"))]
    if not files:
        raise LabError(
            f"There are no objects in {directory}: expected k8s/*.json and cr/*.json, each a Kubernetes List.", 2
        )
    found: list[Object] = []
    for file in files:
        try:
            found += json.loads(file.read_text())["items"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise LabError(f"{file} is not a Kubernetes List: {error}.", 2) from error
    if not any(entry["kind"] == "Node" for entry in found):
        raise LabError(f"There is no Node among the objects of {directory}, so there is nothing to build.", 2)
    for entry in found:
        entry["metadata"].pop("resourceVersion", None)
    order = {"Namespace": 0, "Node": 1}
    return sorted(found, key=lambda entry: order.get(entry["kind"], 2))


def pod_name(node: int, number: int) -> str:
    if node < len(POD_NAMES) and number < len(POD_NAMES[node]):
        return POD_NAMES[node][number]
    return f"app-{node_name(node).removeprefix('node-')}{number + 1}"


def handle_of(container: str) -> str:
    """The IPAM handle of a pod's address."""
    return f"k8s-pod-network.{container}"


def container_id(namespace: str, pod: str) -> str:
    """Sixty-four hex digits, the same for the same pod in every lab."""
    return hashlib.sha256(f"{namespace}/{pod}".encode()).hexdigest()


def block_name(cidr: str) -> str:
    return cidr.replace(".", "-").replace(":", "-").replace("/", "-")


NATIVE: Group = "projectcalico.org"


def stored(entry: Object, group: Group) -> Object:
    """A Calico object as a backing store of that group keeps it; any other object as it is."""
    if group != NATIVE or entry["apiVersion"] != f"{CALICO_GROUP}/v1":
        return entry
    made = copy.deepcopy(entry)
    made["apiVersion"] = f"{NATIVE}/v3"
    made["kind"] = {"IPAMConfig": "IPAMConfiguration"}.get(made["kind"], made["kind"])
    kept = json.loads(made["metadata"].get("annotations", {}).pop("projectcalico.org/metadata", "{}"))
    made["metadata"]["labels"] = kept.get("labels") or {}
    if made["kind"] == "BlockAffinity":
        made["spec"]["deleted"] = made["spec"]["deleted"] == "true"
    return made


def plural(resource: str, group: Group) -> str:
    """What a backing store of that group calls the resource that crd.projectcalico.org calls so."""
    return "ipamconfigurations" if (resource, group) == ("ipamconfigs", NATIVE) else resource


def calico(kind: str, name: str, spec: Object) -> Object:
    """An object of group crd.projectcalico.org/v1 with the annotation Calico's own client writes."""
    return {
        "apiVersion": f"{CALICO_GROUP}/v1",
        "kind": kind,
        "metadata": {"name": name, "annotations": {"projectcalico.org/metadata": '{"creationTimestamp":null}'}},
        "spec": spec,
    }


def policy_about(pod: str, name: str, spec: Object) -> Object:
    """Calico's NetworkPolicy in the namespace of a pod, namespace/name, which selects that pod."""
    namespace, _, _ = pod.partition("/")
    made = calico("NetworkPolicy", f"default.{name}", {"selector": selector_of(pod), **spec})
    made["metadata"]["namespace"] = namespace
    return made


def selector_of(pod: str) -> str:
    """Of one of the lab's own pods, within its namespace."""
    return f"app == '{pod.partition('/')[2]}'"


def handle_object(handle: str, *blocks: str) -> Object:
    return calico(
        "IPAMHandle", handle.lower(), {"block": dict.fromkeys(blocks, 1), "deleted": False, "handleID": handle}
    )


def pod_owner(namespace: str, pod: str, node: str, moment: datetime) -> tuple[str, dict[str, str]]:
    """Handle and attributes of a pod's address in its block."""
    stamp = moment.strftime("%Y-%m-%d %H:%M:%S.%f") + "000 +0000 UTC"
    return (
        handle_of(container_id(namespace, pod)),
        {"namespace": namespace, "node": node, "pod": pod, "timestamp": stamp},
    )


def running_pod(
    namespace: str, name: str, *, node: str, node_address: str, address: str, time: str, further: Sequence[str] = ()
) -> Object:
    """A pod with one container, up and ready. `further`: its addresses of other families."""
    addresses = [address, *further]
    with_length = [f"{one}/{32 if family_of(one) == 4 else 128}" for one in addresses]
    pod = scheduled_pod(namespace, name, node=node, time=time)
    pod["metadata"]["annotations"] = {
        "cni.projectcalico.org/containerID": container_id(namespace, name),
        "cni.projectcalico.org/podIP": with_length[0],
        "cni.projectcalico.org/podIPs": ",".join(with_length),
    }
    pod["status"] = {
        "phase": "Running",
        "conditions": [
            {"lastProbeTime": None, "lastTransitionTime": time, "status": "True", "type": kind}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ],
        "containerStatuses": [
            {
                "containerID": f"containerd://{hashlib.sha256(name.encode()).hexdigest()}",
                "image": "registry.example/app:1",
                "imageID": "",
                "lastState": {},
                "name": "app",
                "ready": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": time}},
            }
        ],
        "hostIP": node_address,
        "hostIPs": [{"ip": node_address}],
        "podIP": address,
        "podIPs": [{"ip": one} for one in addresses],
        "qosClass": "BestEffort",
        "startTime": time,
    }
    return pod


def calico_node_name(node: str) -> str:
    """The name the DaemonSet's pod of a node has in every lab."""
    return f"calico-node-{hashlib.sha256(node.encode()).hexdigest()[:5]}"


def calico_node_pod(node: str, address: str, time: str, version: str = CALICO_VERSION) -> Object:
    """Calico's own pod of a node, on the node's network. The lab's Felix is what would run in it."""
    pod = running_pod(
        SYSTEM_NAMESPACE, calico_node_name(node), node=node, node_address=address, address=address, time=time
    )
    pod["metadata"]["annotations"] = {}
    pod["metadata"]["labels"] = {"k8s-app": "calico-node"}
    pod["metadata"]["ownerReferences"] = [
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "name": "calico-node",
            "uid": "0c1f3a5e-3d4b-4c58-9b0e-6f1f6e4f2a10",
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    pod["spec"]["hostNetwork"] = True
    pod["spec"]["containers"][0].update(name="calico-node", image=f"registry.example/calico/node:{version}")
    del pod["spec"]["containers"][0]["ports"]
    pod["status"]["containerStatuses"][0].update(name="calico-node", image=f"registry.example/calico/node:{version}")
    return pod


def scheduled_pod(namespace: str, name: str, *, node: str, time: str) -> Object:
    """A pod that has a node and nothing else yet."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "creationTimestamp": time,
            "labels": {"app": name},
        },
        "spec": {
            "containers": [
                {
                    "image": "registry.example/app:1",
                    "imagePullPolicy": "IfNotPresent",
                    "name": "app",
                    "ports": [{"containerPort": ECHO_PORT, "protocol": "TCP"}],
                    "resources": {},
                }
            ],
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": True,
            "nodeName": node,
            "priority": 0,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "serviceAccount": "default",
            "serviceAccountName": "default",
            "terminationGracePeriodSeconds": 30,
        },
        "status": {},
    }
