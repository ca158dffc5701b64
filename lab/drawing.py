"""Invents the API objects of a healthy cluster, and lets variants change them; without it a lab would need a recording.

What IPAM writes, it writes through `claim` and `take`, so that blocks, affinities and handles agree with each other.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from lab.allocator import HANDLE, TYPE
from lab.errors import LabError
from lab.intent import ANNOTATION_ADDRESS, ANNOTATION_INTERFACES, ANNOTATION_TUNNEL, Object
from lab.kernel import family_of
from lab.objects import (
    APPLICATION_NAMESPACE,
    SYSTEM_NAMESPACE,
    block_name,
    calico,
    calico_node_pod,
    handle_object,
    pod_name,
    pod_owner,
    running_pod,
)
from lab.sketch import Sketch

if TYPE_CHECKING:
    from lab.variants import Variant

POOLS = {4: "10.244.0.0/16", 6: "fd00:10:244::/48"}
POOL_NAMES = {4: "default-ipv4-ippool", 6: "default-ipv6-ippool"}
# What a node's address starts with, in the subnet all are in and in the one of the last node where there are two.
UNDERLAY = {4: ("172.30.0.", "172.30.1."), 6: ("fd00:172:30::", "fd00:172:30:1::")}
# The blocks a running Calico picked for these names; it hashes the name with a generator of the Go library.
RECORDED_BLOCKS = {
    ("node-a", 4): "10.244.174.128/26",
    ("node-b", 4): "10.244.218.64/26",
    ("node-c", 4): "10.244.99.192/26",
    ("node-a", 6): "fd00:10:244:6d15:74ba:80e:4835:8080/122",
    ("node-b", 6): "fd00:10:244:da40:995e:89a6:1d37:a7c0/122",
    ("node-c", 6): "fd00:10:244:63d9:5e8a:b70f:7bef:8700/122",
}


def invented(sketch: Sketch, variants: Sequence[Variant] = ()) -> list[Object]:
    """The objects of the sketched cluster as the variants change them. Raises LabError for impossible numbers."""
    if not 1 <= sketch.nodes <= 200:
        raise LabError(f"A lab has 1 to 200 nodes, not {sketch.nodes}.", 2)
    if not 0 <= sketch.pods_per_node <= 60:
        raise LabError(f"A node of the lab has 0 to 60 pods, not {sketch.pods_per_node}.", 2)
    drawing = Drawing(sketch)
    for variant in variants:
        variant.objects(drawing)
    return drawing.entries


class Drawing:
    """Objects that nobody has seen yet: an edit of `entries` is all it takes to change the cluster."""

    def __init__(self, sketch: Sketch) -> None:
        self.sketch = sketch
        self.moment = datetime.now(UTC) - timedelta(hours=1)
        self.entries: list[Object] = []
        self._sequence = int(self.moment.timestamp() * 1e9)
        self._draw()

    # ---- looking

    @property
    def time(self) -> str:
        return self.moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def nodes(self) -> list[str]:
        return [self.sketch.node_name(number) for number in range(self.sketch.nodes)]

    def all(self, kind: str) -> list[Object]:
        return [entry for entry in self.entries if entry["kind"] == kind]

    def one(self, kind: str, name: str) -> Object:
        """Raises StopIteration when there is none."""
        return next(entry for entry in self.all(kind) if entry["metadata"]["name"] == name)

    def pods(self, node: str) -> list[Object]:
        """Of an application, up, and with a network of their own; in order."""
        return [
            pod
            for pod in self.all("Pod")
            if pod["spec"]["nodeName"] == node
            and pod["metadata"]["namespace"] == APPLICATION_NAMESPACE
            and pod["status"]["phase"] == "Running"
            and not pod["spec"].get("hostNetwork")
            and not pod["metadata"].get("deletionTimestamp")
        ]

    def pool(self, family: int) -> Object:
        """The first of a family."""
        return self.one("IPPool", POOL_NAMES[family])

    def block(self, node: str, family: int) -> Object:
        """The first one affine to a node."""
        return next(
            block
            for block in self.all("IPAMBlock")
            if block["spec"]["affinity"] == f"host:{node}" and family_of(block["spec"]["cidr"]) == family
        )

    def holding(self, address: str) -> Object:
        """The block that holds an address."""
        found = ip_address(address)
        return next(block for block in self.all("IPAMBlock") if found in ip_network(block["spec"]["cidr"]))

    def tunnel_address(self, node: str, family: int) -> str:
        annotations: Mapping[str, str] = self.one("Node", node)["metadata"]["annotations"]
        return annotations.get(ANNOTATION_TUNNEL[family], "")

    # ---- IPAM

    def free_block(self, node: str, family: int, pool: str = "") -> str:
        """The CIDR of a block nobody has, of the first pool or of another: where a hash of the node's name points to.

        Block sizes are the sketch's.
        """
        network = ip_network(pool or POOLS[family])
        size = network.max_prefixlen - dict(self.sketch.block_size)[family]
        possible = 1 << (dict(self.sketch.block_size)[family] - network.prefixlen)
        taken = {ip_network(block["spec"]["cidr"]) for block in self.all("IPAMBlock")}
        start = int.from_bytes(hashlib.sha256(node.encode()).digest()[:12])
        for step in range(possible):
            found = ip_network((int(network[0]) + ((start + step) % possible << size), network.max_prefixlen - size))
            if not any(found.overlaps(one) for one in taken if one.version == found.version):
                return str(found)
        raise ValueError(f"{network} has no block left")

    def claim(self, cidr: str, node: str) -> Object:
        """A block of the node's own with its affinity."""
        network = ip_network(cidr)
        block = self.empty_block(cidr, f"host:{node}")
        version = self.sketch.numbers
        labels = {
            "projectcalico.org/affinity-type": "host",
            "projectcalico.org/hostname-hash": base64.b32encode(hashlib.sha3_256(node.encode()).digest())
            .decode()
            .rstrip("="),
            "projectcalico.org/ip-version": str(network.version),
        }
        spec = {"cidr": cidr, "deleted": "false", "node": node, "state": "confirmed"}
        affinity = calico("BlockAffinity", f"{node}-{block_name(cidr)}", spec)
        if version >= (3, 30):
            spec["type"] = "host"
        if version >= (3, 31):
            affinity["metadata"]["labels"] = labels
            affinity["metadata"]["annotations"]["projectcalico.org/metadata"] = json.dumps(
                {"creationTimestamp": None, "labels": labels}, separators=(",", ":")
            )
        self.entries.append(affinity)
        return block

    def empty_block(self, cidr: str, affinity: str | None) -> Object:
        size = ip_network(cidr).num_addresses
        spec: Object = {
            "affinity": affinity,
            "allocations": [None] * size,
            "attributes": [],
            "cidr": cidr,
            "deleted": False,
            "sequenceNumber": self._next(),
            "sequenceNumberForAllocation": {},
            "strictAffinity": False,
            "unallocated": list(range(size)),
        }
        if self.sketch.numbers >= (3, 32):
            spec["affinityClaimTime"] = self.time
        block = calico("IPAMBlock", block_name(cidr), spec)
        self.entries.append(block)
        return block

    def take(self, block: Object, handle: str, secondary: Mapping[str, str]) -> str:
        """The longest free address of a block, now allocated."""
        spec = block["spec"]
        ordinal = spec["unallocated"].pop(0)
        spec["attributes"].append({"handle_id": handle, "secondary": dict(secondary)})
        spec["allocations"][ordinal] = len(spec["attributes"]) - 1
        spec["sequenceNumberForAllocation"][str(ordinal)] = spec["sequenceNumber"]
        spec["sequenceNumber"] = self._next()
        known = [entry for entry in self.all("IPAMHandle") if entry["spec"]["handleID"] == handle]
        if known:
            blocks = known[0]["spec"]["block"]
            blocks[spec["cidr"]] = blocks.get(spec["cidr"], 0) + 1
        else:
            self.entries.append(handle_object(handle, spec["cidr"]))
        return str(ip_network(spec["cidr"])[ordinal])

    def free(self, address: str) -> None:
        """It is allocated no more, and its handle forgets it."""
        block = self.holding(address)
        spec = block["spec"]
        ordinal = int(ip_address(address)) - int(ip_network(spec["cidr"])[0])
        index = spec["allocations"][ordinal]
        handle = spec["attributes"].pop(index)["handle_id"]
        spec["allocations"] = [
            None if one == index else one - 1 if one is not None and one > index else one for one in spec["allocations"]
        ]
        spec["unallocated"].append(ordinal)
        del spec["sequenceNumberForAllocation"][str(ordinal)]
        for entry in [one for one in self.all("IPAMHandle") if one["spec"]["handleID"] == handle]:
            blocks = entry["spec"]["block"]
            blocks[spec["cidr"]] -= 1
            entry["spec"]["block"] = {cidr: count for cidr, count in blocks.items() if count}
            if not entry["spec"]["block"]:
                self.entries.remove(entry)

    def remove_block(self, block: Object) -> None:
        """With its affinity."""
        self.entries.remove(block)
        for affinity in self.all("BlockAffinity"):
            if affinity["spec"]["cidr"] == block["spec"]["cidr"]:
                self.entries.remove(affinity)

    def give_tunnel_address(self, node: str, block: Object) -> None:
        """The node's tunnel address is from that block from now on."""
        family = ip_network(block["spec"]["cidr"]).version
        former = self.tunnel_address(node, family)
        if former:
            self.free(former)
        address = self.take(block, HANDLE[family].format(node), {"node": node, "type": TYPE[family]})
        self.one("Node", node)["metadata"]["annotations"][ANNOTATION_TUNNEL[family]] = address

    def give_address(self, pod: Object, blocks: Sequence[Object]) -> None:
        """The pod's addresses are from these blocks from now on, one of each family it has."""
        meta, node = pod["metadata"], pod["spec"]["nodeName"]
        for one in pod["status"]["podIPs"]:
            self.free(one["ip"])
        handle, secondary = pod_owner(meta["namespace"], meta["name"], node, self.moment)
        self.readdress(pod, [self.take(block, handle, secondary) for block in blocks])

    def readdress(self, pod: Object, addresses: Sequence[str]) -> None:
        """The pod has these addresses from now on, whatever IPAM says."""
        meta = pod["metadata"]
        meta["annotations"] = self._running(meta["name"], pod["spec"]["nodeName"], addresses)["metadata"]["annotations"]
        pod["status"].update(podIP=addresses[0], podIPs=[{"ip": one} for one in addresses])

    def add_pod(self, name: str, node: str) -> Object:
        """One more, of the node's first blocks."""
        handle, secondary = pod_owner(APPLICATION_NAMESPACE, name, node, self.moment)
        blocks = [self.block(node, family) for family in self.sketch.families]
        pod = self._running(name, node, [self.take(block, handle, secondary) for block in blocks])
        self.entries.append(pod)
        return pod

    def add_pool(self, family: int, name: str, cidr: str, **different: object) -> Object:
        """As the first pool of the family is, but for what is different."""
        pool = calico("IPPool", name, {**self.pool(family)["spec"], "cidr": cidr, **different})
        self.entries.append(pool)
        return pool

    # ---- the beginning

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _draw(self) -> None:
        self.entries.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": APPLICATION_NAMESPACE}})
        for name in ("default", SYSTEM_NAMESPACE, APPLICATION_NAMESPACE):
            metadata = {"name": "default", "namespace": name}
            self.entries.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        self._settings()
        sketch = self.sketch
        for number, name in enumerate(self.nodes):
            self.entries.append(self._node(number))
            address = self.node_address(number, sketch.families[0])
            self.entries.append(calico_node_pod(name, address, self.time, sketch.version))
            for family in sketch.families:
                cidr = RECORDED_BLOCKS.get((name, family), "")
                if not cidr or ip_network(cidr).prefixlen != dict(sketch.block_size)[family]:
                    cidr = self.free_block(name, family)
                block = self.claim(cidr, name)
                if sketch.vxlan_mode != "Never":
                    self.give_tunnel_address(name, block)
            for index in range(sketch.pods_per_node):
                self.add_pod(pod_name(number, index), name)

    def node_address(self, number: int, family: int) -> str:
        far = self.sketch.two_subnets and number == self.sketch.nodes - 1
        last = str(11 + number) if family == 4 else f"{11 + number:x}"
        return UNDERLAY[family][far] + last

    def _running(self, name: str, node: str, addresses: Sequence[str]) -> Object:
        number = self.nodes.index(node)
        return running_pod(
            APPLICATION_NAMESPACE,
            name,
            node=node,
            node_address=self.node_address(number, self.sketch.families[0]),
            address=addresses[0],
            further=addresses[1:],
            time=self.time,
        )

    def _node(self, number: int) -> Object:
        name, sketch = self.nodes[number], self.sketch
        addresses = {family: self.node_address(number, family) for family in sketch.families}
        lengths = {4: 16 if sketch.wide_subnet else 24, 6: 64}
        interfaces = [{"name": sketch.uplink, "addresses": list(addresses.values())}]
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "creationTimestamp": self.time,
                "annotations": {
                    **{ANNOTATION_ADDRESS[family]: f"{one}/{lengths[family]}" for family, one in addresses.items()},
                    ANNOTATION_INTERFACES: json.dumps(interfaces, separators=(",", ":")),
                },
                "labels": {
                    "kubernetes.io/arch": "amd64",
                    "kubernetes.io/hostname": name[:63].rstrip("-."),
                    "kubernetes.io/os": "linux",
                },
            },
            "spec": {},
            "status": {
                "addresses": [
                    *({"address": one, "type": "InternalIP"} for one in addresses.values()),
                    {"address": name, "type": "Hostname"},
                ],
                "conditions": [
                    {
                        "lastHeartbeatTime": self.time,
                        "lastTransitionTime": self.time,
                        "message": "Calico is running on this node",
                        "reason": "CalicoIsUp",
                        "status": "False",
                        "type": "NetworkUnavailable",
                    },
                    {
                        "lastHeartbeatTime": self.time,
                        "lastTransitionTime": self.time,
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

    def _settings(self) -> None:
        sketch = self.sketch
        for family in sketch.families:
            spec = {
                "allowedUses": ["Workload", "Tunnel"],
                "assignmentMode": "Automatic",
                "blockSize": dict(sketch.block_size)[family],
                "cidr": POOLS[family],
                "ipipMode": "Never",
                "natOutgoing": True,
                "nodeSelector": "all()",
                "vxlanMode": sketch.vxlan_mode,
            }
            self.entries.append(calico("IPPool", POOL_NAMES[family], spec))
        guid = hashlib.md5(b"calico-why lab", usedforsecurity=False).hexdigest()
        settings: tuple[tuple[str, str, Object], ...] = (
            (
                "ClusterInformation",
                "default",
                {
                    "calicoVersion": sketch.version,
                    "clusterGUID": guid,
                    "clusterType": "k8s,bgp,kdd",
                    "datastoreReady": True,
                },
            ),
            (
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
            ),
            (
                "IPAMConfig",
                "default",
                {"autoAllocateBlocks": True, "kubeVirtVMAddressPersistence": "Enabled", "strictAffinity": False},
            ),
            ("BGPConfiguration", "default", {"logSeverityScreen": "Info", "serviceLoadBalancerAggregation": "Enabled"}),
            ("Tier", "default", {"defaultAction": "Deny", "order": 1_000_000}),
            ("Tier", "kube-admin", {"defaultAction": "Pass", "order": 1_000}),
            ("Tier", "kube-baseline", {"defaultAction": "Pass", "order": 10_000_000}),
        )
        self.entries += [calico(kind, name, spec) for kind, name, spec in settings]
