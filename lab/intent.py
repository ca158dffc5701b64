"""What Felix wants of a node's kernel, from the API objects alone; without it the lab would be one fixed drawing.

Pure. Observed on a running Calico and compared with its recordings by tests/test_lab_felix.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from lab.kernel import FELIX, LINK, Route

Object = dict[str, Any]
TUNNEL_DEVICE = "vxlan.calico"
UPLINK = "eth0"
UPLINK_MTU = 1500
VXLAN_OVERHEAD = 50
ANNOTATION_ADDRESS = "projectcalico.org/IPv4Address"
ANNOTATION_TUNNEL = "projectcalico.org/IPv4VXLANTunnelAddr"
ANNOTATION_TUNNEL_MAC = "projectcalico.org/VXLANTunnelMACAddr"


def tunnel_mac(node: str) -> str:
    """The MAC Felix gives vxlan.calico on NODE: 66: and the first five bytes of the name's SHA-1."""
    digest = hashlib.sha1(node.encode(), usedforsecurity=False).digest()
    return ":".join(["66", *(f"{byte:02x}" for byte in digest[:5])])


def interface_name(namespace: str, pod: str) -> str:
    """The host side of a pod's veth: cali and eleven hex digits."""
    return "cali" + hashlib.sha1(f"{namespace}.{pod}".encode(), usedforsecurity=False).hexdigest()[:11]


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node as its annotations describe it to every Felix; "" where an annotation is missing."""

    name: str
    interface: IPv4Interface | None  # IPv4Address annotation, ADDRESS/LENGTH
    tunnel: str
    mac: str

    @property
    def address(self) -> str:
        return str(self.interface.ip) if self.interface else ""


@dataclass(frozen=True, slots=True)
class PodRecord:
    """A Calico endpoint: a scheduled pod with an address that is not on its node's own network."""

    namespace: str
    name: str
    node: str
    address: str

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def interface(self) -> str:
        return interface_name(self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """An IPAM block: the node it is affine to ("" for none), and who uses each allocated address."""

    network: IPv4Network
    node: str
    users: Mapping[str, str]  # address -> node of its allocation


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """An IPPool as far as routing goes."""

    network: IPv4Network
    vxlan_mode: str
    block_size: int


@dataclass(frozen=True)
class Objects:
    """Everything Felix reads from the API, at one moment."""

    nodes: Mapping[str, NodeRecord]
    pods: tuple[PodRecord, ...]
    blocks: tuple[BlockRecord, ...]
    pools: tuple[PoolRecord, ...]
    felix: Mapping[str, Object]  # FelixConfiguration specs by name
    version: tuple[int, int]  # Calico's, (3, 32)

    @classmethod
    def read(cls, list_of: Callable[[str], Iterable[Object]]) -> Objects:
        """`list_of("pods")` gives the plain objects of a resource, by its plural."""
        information: Object = next(iter(list_of("clusterinformations")), {"spec": {}})
        return cls(
            nodes={record.name: record for record in map(_node, list_of("nodes"))},
            pods=tuple(record for record in map(_pod, list_of("pods")) if record),
            blocks=tuple(_block(entry) for entry in list_of("ipamblocks") if ":" not in entry["spec"]["cidr"]),
            pools=tuple(
                PoolRecord(
                    IPv4Network(entry["spec"]["cidr"]),
                    entry["spec"].get("vxlanMode", "Never"),
                    entry["spec"].get("blockSize", 26),
                )
                for entry in list_of("ippools")
                if ":" not in entry["spec"]["cidr"]
            ),
            felix={entry["metadata"]["name"]: entry.get("spec", {}) for entry in list_of("felixconfigurations")},
            version=_version(information["spec"].get("calicoVersion", "")),
        )

    def setting(self, node: str, name: str, default: Any) -> Any:
        """A FelixConfiguration field, the node's own before the cluster's."""
        for source in (f"node.{node}", "default"):
            if name in self.felix.get(source, {}):
                return self.felix[source][name]
        return default

    def pool_of(self, address: IPv4Address) -> PoolRecord | None:
        return next((pool for pool in self.pools if address in pool.network), None)

    def block_of(self, address: str) -> BlockRecord | None:
        """The block that holds an address."""
        if not address:
            return None
        return next((block for block in self.blocks if IPv4Address(address) in block.network), None)


@dataclass(frozen=True, slots=True)
class TunnelDevice:
    """vxlan.calico as it should be."""

    mac: str
    address: str  # without a length; always /32 on the device
    local: str
    parent: str = UPLINK
    mtu: int = UPLINK_MTU - VXLAN_OVERHEAD
    vni: int = 4096
    port: int = 4789


@dataclass(frozen=True)
class Intent:
    """What one node's Felix programs."""

    device: TunnelDevice | None
    routes: frozenset[Route] = frozenset()
    neighbors: Mapping[str, str] = field(default_factory=dict)  # tunnel address -> MAC
    fdb: Mapping[str, str] = field(default_factory=dict)  # MAC -> node address
    endpoints: Mapping[str, str] = field(default_factory=dict)  # interface -> pod address


def intent(objects: Objects, name: str, before: TunnelDevice | None = None) -> Intent:
    """`before` is the device Felix programmed last: it keeps it when the node's own tunnel address is taken away."""
    me = objects.nodes[name]
    device = _device(objects, me, before)
    mtu = device.mtu if device and objects.version >= (3, 31) else 0
    others = {peer.name: peer for peer in objects.nodes.values() if peer.name != name and peer.address}
    peers = [peer for peer in others.values() if peer.tunnel]
    # Of two nodes that claim one tunnel address, the one IPAM gave it to keeps the neighbor entry (observed).
    peers.sort(key=lambda peer: _owns(objects, peer))
    routes: dict[str, Route] = {}

    def towards(destination: str, peer: NodeRecord, gateway: str, link_scope: bool) -> None:
        pool = objects.pool_of(IPv4Address(destination.partition("/")[0]))
        mode = pool.vxlan_mode if pool else "Never"
        if mode == "CrossSubnet" and me.interface and IPv4Address(peer.address) in me.interface.network:
            routes[destination] = Route(destination, gateway=peer.address, device=UPLINK, protocol=FELIX, onlink=True)
        elif mode != "Never" and device and peer.tunnel:
            routes[destination] = (
                Route(destination, device=TUNNEL_DEVICE, scope=LINK, mtu=mtu)
                if link_scope
                else Route(destination, gateway=gateway, device=TUNNEL_DEVICE, onlink=True, mtu=mtu)
            )

    for block in objects.blocks:
        if block.node == name:
            if block.network.prefixlen < 32:
                routes[str(block.network)] = Route(str(block.network), kind="blackhole", protocol=FELIX)
        elif block.node in others:
            towards(str(block.network), others[block.node], others[block.node].tunnel, False)
        for address, user in block.users.items():
            if user != block.node and user in others and address != others[user].tunnel:
                towards(f"{address}/32", others[user], others[user].tunnel, False)
    for peer in peers:
        holder = objects.block_of(peer.tunnel)
        # 3.30 and 3.31 also write this route for a tunnel address in the peer's own block, where it does no harm.
        if holder is None or holder.node != peer.name or (3, 30) <= objects.version < (3, 32):
            towards(f"{peer.tunnel}/32", peer, "", True)

    metric = 1024 if objects.version >= (3, 32) else 0
    mine = [pod for pod in objects.pods if pod.node == name]
    for pod in mine:
        routes[f"{pod.address}/32"] = Route(f"{pod.address}/32", device=pod.interface, scope=LINK, metric=metric)
    return Intent(
        device=device,
        routes=frozenset(routes.values()),
        neighbors={peer.tunnel: peer.mac for peer in peers} if device else {},
        fdb={peer.mac: peer.address for peer in peers} if device else {},
        endpoints={pod.interface: pod.address for pod in mine},
    )


def _device(objects: Objects, me: NodeRecord, before: TunnelDevice | None) -> TunnelDevice | None:
    if all(pool.vxlan_mode == "Never" for pool in objects.pools):
        return None
    if not me.address or not me.tunnel:
        return before
    mtu = objects.setting(me.name, "vxlanMTU", 0) or UPLINK_MTU - VXLAN_OVERHEAD
    wanted = TunnelDevice(mac=me.mac, address=me.tunnel, local=me.address, mtu=mtu)
    return replace(
        wanted,
        vni=objects.setting(me.name, "vxlanVNI", wanted.vni),
        port=objects.setting(me.name, "vxlanPort", wanted.port),
    )


def _owns(objects: Objects, node: NodeRecord) -> bool:
    block = objects.block_of(node.tunnel)
    return block is not None and block.users.get(node.tunnel) == node.name


def _node(entry: Object) -> NodeRecord:
    metadata = entry["metadata"]
    annotations = metadata.get("annotations") or {}
    address = annotations.get(ANNOTATION_ADDRESS, "")
    return NodeRecord(
        name=metadata["name"],
        interface=IPv4Interface(address) if address else None,
        tunnel=annotations.get(ANNOTATION_TUNNEL, ""),
        mac=annotations.get(ANNOTATION_TUNNEL_MAC) or tunnel_mac(metadata["name"]),
    )


def _pod(entry: Object) -> PodRecord | None:
    metadata, spec, status = entry["metadata"], entry.get("spec", {}), entry.get("status", {})
    annotations = metadata.get("annotations") or {}
    node = spec.get("nodeName", "")
    finished = status.get("phase") in ("Succeeded", "Failed")
    torn_down = metadata.get("deletionTimestamp") and annotations.get("cni.projectcalico.org/podIP") == ""
    if not node or spec.get("hostNetwork") or finished or torn_down:
        return None
    given = [one["ip"] for one in status.get("podIPs") or []] or [status.get("podIP") or ""]
    address = next((ip for ip in given if ip and ":" not in ip), "")
    address = address or annotations.get("cni.projectcalico.org/podIP", "").partition("/")[0]
    if not address:
        return None
    return PodRecord(metadata["namespace"], metadata["name"], node, address)


def _block(entry: Object) -> BlockRecord:
    spec = entry["spec"]
    network = IPv4Network(spec["cidr"])
    kind, _, owner = (spec.get("affinity") or "").partition(":")
    users = {}
    for ordinal, index in enumerate(spec["allocations"]):
        if index is not None:
            attributes = spec["attributes"][index].get("secondary") or {}
            users[str(network[ordinal])] = attributes.get("node", "")
    return BlockRecord(network, owner if kind == "host" else "", users)


def _version(text: str) -> tuple[int, int]:
    numbers = text.lstrip("v").split(".")
    try:
        return int(numbers[0]), int(numbers[1])
    except (IndexError, ValueError):
        return (3, 32)
