"""The API objects a lab starts from, shaped as Calico writes them; without it a lab would need a recording."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path

from lab.apiserver.calico_definitions import Group
from lab.errors import LabError
from lab.intent import Object
from lab.settings import VARIANTS

CALICO_VERSION = "v3.32.1"
POOL = IPv4Network("10.244.0.0/16")
BLOCK_SIZE = 26
UNDERLAY = "172.30.0"
FAR_SUBNET = "172.30.1"  # where the last node stands in the crosssubnet variants
# The blocks a running Calico picked for these names; it hashes the name with a generator of the Go library.
RECORDED_BLOCKS = {"node-a": "10.244.174.128/26", "node-b": "10.244.218.64/26", "node-c": "10.244.99.192/26"}
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


def invented(nodes: int = 3, pods_per_node: int = 2, variant: str = "vxlan") -> list[Object]:
    """A healthy cluster of NODES nodes with PODS_PER_NODE pods each. Raises LabError for impossible numbers."""
    if variant not in VARIANTS:
        raise LabError(f"There is no variant {variant}; choose one of: {', '.join(VARIANTS)}.", 2)
    if not 1 <= nodes <= 200:
        raise LabError(f"A lab has 1 to 200 nodes, not {nodes}.", 2)
    if not 0 <= pods_per_node <= 60:
        raise LabError(f"A node of the lab has 0 to 60 pods, not {pods_per_node}.", 2)
    return list(_Cluster(nodes, pods_per_node, variant).objects())


def node_name(number: int) -> str:
    """node-a ... node-z, node-aa, node-ab ..."""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return f"node-{letters}"


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


class _Cluster:
    def __init__(self, nodes: int, pods_per_node: int, variant: str) -> None:
        self.nodes = nodes
        self.pods_per_node = pods_per_node
        self.cross_subnet = variant == "vxlan-crosssubnet"
        self.moment = datetime.now(UTC) - timedelta(hours=1)
        self.blocks = self._blocks()

    def objects(self) -> Iterator[Object]:
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": APPLICATION_NAMESPACE}}
        for namespace in ("default", SYSTEM_NAMESPACE, APPLICATION_NAMESPACE):
            yield {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": "default", "namespace": namespace},
            }
        yield from self._settings()
        for number in range(self.nodes):
            yield self._node(number)
            yield calico_node_pod(node_name(number), self._address(number), self._time)
            for index in range(self.pods_per_node):
                yield self._pod(number, index)
            yield from self._ipam(number)

    @property
    def _time(self) -> str:
        return self.moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    def _blocks(self) -> list[IPv4Network]:
        """One block a node, spread over the pool by a hash of the node's name, each taken once."""
        possible = list(POOL.subnets(new_prefix=BLOCK_SIZE))
        names = [node_name(number) for number in range(self.nodes)]
        chosen = {name: IPv4Network(RECORDED_BLOCKS[name]) for name in names if name in RECORDED_BLOCKS}
        taken = set(chosen.values())
        for name in names:
            if name not in chosen:
                start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % len(possible)
                chosen[name] = next(block for block in (*possible[start:], *possible[:start]) if block not in taken)
                taken.add(chosen[name])
        return [chosen[name] for name in names]

    def _address(self, number: int) -> str:
        subnet = FAR_SUBNET if self.cross_subnet and number == self.nodes - 1 else UNDERLAY
        return f"{subnet}.{11 + number}"

    def _node(self, number: int) -> Object:
        name, address = node_name(number), self._address(number)
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "creationTimestamp": self._time,
                "annotations": {
                    "projectcalico.org/IPv4Address": f"{address}/24",
                    "projectcalico.org/IPv4VXLANTunnelAddr": str(self.blocks[number][0]),
                    "projectcalico.org/Interfaces": json.dumps(
                        [{"name": "eth0", "addresses": [address]}], separators=(",", ":")
                    ),
                },
                "labels": {
                    "kubernetes.io/arch": "amd64",
                    "kubernetes.io/hostname": name,
                    "kubernetes.io/os": "linux",
                },
            },
            "spec": {},
            "status": {
                "addresses": [
                    {"address": address, "type": "InternalIP"},
                    {"address": name, "type": "Hostname"},
                ],
                "conditions": [
                    {
                        "lastHeartbeatTime": self._time,
                        "lastTransitionTime": self._time,
                        "message": "Calico is running on this node",
                        "reason": "CalicoIsUp",
                        "status": "False",
                        "type": "NetworkUnavailable",
                    },
                    {
                        "lastHeartbeatTime": self._time,
                        "lastTransitionTime": self._time,
                        "message": "kubelet is posting ready status",
                        "reason": "KubeletReady",
                        "status": "True",
                        "type": "Ready",
                    },
                ],
                "nodeInfo": {
                    "architecture": "amd64",
                    "bootID": "",
                    "containerRuntimeVersion": "",
                    "kernelVersion": "",
                    "kubeProxyVersion": "",
                    "kubeletVersion": "v1.34.2",
                    "machineID": "",
                    "operatingSystem": "linux",
                    "osImage": "",
                    "systemUUID": "",
                },
            },
        }

    def _pod(self, number: int, index: int) -> Object:
        name = pod_name(number, index)
        return running_pod(
            APPLICATION_NAMESPACE,
            name,
            node=node_name(number),
            node_address=self._address(number),
            address=str(self.blocks[number][index + 1]),
            time=self._time,
        )

    def _ipam(self, number: int) -> Iterator[Object]:
        node, block = node_name(number), self.blocks[number]
        size = block.num_addresses
        owners = [
            (f"vxlan-tunnel-addr-{node}", {"node": node, "type": "vxlanTunnelAddress"}),
            *(
                pod_owner(APPLICATION_NAMESPACE, pod_name(number, i), node, self.moment)
                for i in range(self.pods_per_node)
            ),
        ]
        first = int(self.moment.timestamp() * 1e9)
        used = len(owners)
        yield calico(
            "IPAMBlock",
            block_name(str(block)),
            {
                "affinity": f"host:{node}",
                "affinityClaimTime": self._time,
                "allocations": [*range(used), *([None] * (size - used))],
                "attributes": [{"handle_id": handle, "secondary": secondary} for handle, secondary in owners],
                "cidr": str(block),
                "deleted": False,
                "sequenceNumber": first + used,
                "sequenceNumberForAllocation": {str(ordinal): first + ordinal for ordinal in range(used)},
                "strictAffinity": False,
                "unallocated": list(range(used, size)),
            },
        )
        labels = {
            "projectcalico.org/affinity-type": "host",
            "projectcalico.org/hostname-hash": base64.b32encode(hashlib.sha3_256(node.encode()).digest())
            .decode()
            .rstrip("="),
            "projectcalico.org/ip-version": "4",
        }
        affinity = calico(
            "BlockAffinity",
            f"{node}-{block_name(str(block))}",
            {"cidr": str(block), "deleted": "false", "node": node, "state": "confirmed", "type": "host"},
        )
        affinity["metadata"]["labels"] = labels
        affinity["metadata"]["annotations"]["projectcalico.org/metadata"] = json.dumps(
            {"creationTimestamp": None, "labels": labels}, separators=(",", ":")
        )
        yield affinity
        for handle, _ in owners:
            yield handle_object(handle, str(block))

    def _settings(self) -> Iterator[Object]:
        yield calico(
            "IPPool",
            "default-ipv4-ippool",
            {
                "allowedUses": ["Workload", "Tunnel"],
                "assignmentMode": "Automatic",
                "blockSize": BLOCK_SIZE,
                "cidr": str(POOL),
                "ipipMode": "Never",
                "natOutgoing": True,
                "nodeSelector": "all()",
                "vxlanMode": "CrossSubnet" if self.cross_subnet else "Always",
            },
        )
        yield calico(
            "ClusterInformation",
            "default",
            {
                "calicoVersion": CALICO_VERSION,
                "clusterGUID": hashlib.md5(b"calico-why lab", usedforsecurity=False).hexdigest(),
                "clusterType": "k8s,bgp,kdd",
                "datastoreReady": True,
            },
        )
        yield calico(
            "FelixConfiguration",
            "default",
            {
                "bpfConnectTimeLoadBalancing": "TCP",
                "bpfHostNetworkedNATWithoutCTLB": "Enabled",
                "bpfLogLevel": "",
                "floatingIPs": "Disabled",
                "logSeverityScreen": "Info",
                "nftablesMode": "Auto",
                "reportingInterval": "0s",
            },
        )
        yield calico(
            "IPAMConfig",
            "default",
            {"autoAllocateBlocks": True, "kubeVirtVMAddressPersistence": "Enabled", "strictAffinity": False},
        )
        yield calico(
            "BGPConfiguration",
            "default",
            {"logSeverityScreen": "Info", "serviceLoadBalancerAggregation": "Enabled"},
        )
        for name, action, order in (
            ("default", "Deny", 1_000_000),
            ("kube-admin", "Pass", 1_000),
            ("kube-baseline", "Pass", 10_000_000),
        ):
            yield calico("Tier", name, {"defaultAction": action, "order": order})


def calico(kind: str, name: str, spec: Object) -> Object:
    """An object of group crd.projectcalico.org/v1 with the annotation Calico's own client writes."""
    return {
        "apiVersion": f"{CALICO_GROUP}/v1",
        "kind": kind,
        "metadata": {"name": name, "annotations": {"projectcalico.org/metadata": '{"creationTimestamp":null}'}},
        "spec": spec,
    }


def handle_object(handle: str, block: str) -> Object:
    return calico("IPAMHandle", handle.lower(), {"block": {block: 1}, "deleted": False, "handleID": handle})


def pod_owner(namespace: str, pod: str, node: str, moment: datetime) -> tuple[str, dict[str, str]]:
    """Handle and attributes of a pod's address in its block."""
    stamp = moment.strftime("%Y-%m-%d %H:%M:%S.%f") + "000 +0000 UTC"
    return (
        handle_of(container_id(namespace, pod)),
        {"namespace": namespace, "node": node, "pod": pod, "timestamp": stamp},
    )


def running_pod(namespace: str, name: str, *, node: str, node_address: str, address: str, time: str) -> Object:
    """A pod with one container, up and ready."""
    pod = scheduled_pod(namespace, name, node=node, time=time)
    pod["metadata"]["annotations"] = {
        "cni.projectcalico.org/containerID": container_id(namespace, name),
        "cni.projectcalico.org/podIP": f"{address}/32",
        "cni.projectcalico.org/podIPs": f"{address}/32",
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
        "podIPs": [{"ip": address}],
        "qosClass": "BestEffort",
        "startTime": time,
    }
    return pod


def calico_node_name(node: str) -> str:
    """The name the DaemonSet's pod of a node has in every lab."""
    return f"calico-node-{hashlib.sha256(node.encode()).hexdigest()[:5]}"


def calico_node_pod(node: str, address: str, time: str) -> Object:
    """Calico's own pod of a node, on the node's network. The lab's Felix is what would run in it."""
    pod = running_pod(
        SYSTEM_NAMESPACE, calico_node_name(node), node=node, node_address=address, address=address, time=time
    )
    pod["metadata"]["annotations"] = {}
    pod["metadata"]["labels"] = {"k8s-app": "calico-node"}
    pod["spec"]["hostNetwork"] = True
    pod["spec"]["containers"][0].update(name="calico-node", image=f"registry.example/calico/node:{CALICO_VERSION}")
    del pod["spec"]["containers"][0]["ports"]
    pod["status"]["containerStatuses"][0].update(
        name="calico-node", image=f"registry.example/calico/node:{CALICO_VERSION}"
    )
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
