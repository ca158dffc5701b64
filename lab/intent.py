"""What Felix wants of a node's kernel, from the API objects alone; without it the lab would be one fixed drawing.

Pure, and of one address family at a time: as Felix itself, which has a manager for each. Observed on a running Calico
and compared with its recordings by tests/test_lab_felix.py. Where no pool tunnels, BIRD's routes are told here too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Any

from facts.flow import TUNNEL_DEVICES
from lab.kernel import BIRD, BOOT, FELIX, GLOBAL, LINK, Route, family_of

Object = dict[str, Any]
Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

TUNNEL_DEVICE = TUNNEL_DEVICES["vxlan", 4]
UPLINK = "eth0"  # of a node, unless its annotation says otherwise; and the pod's own end of its veth
UPLINK_MTU = 1500
IPIP_OVERHEAD = 20
IPIP_DEVICE = TUNNEL_DEVICES["ipip", 4]
VXLAN_OVERHEAD = {4: 50, 6: 70}
V6_METRIC = 1024  # the kernel's, for a route that names none
ANNOTATION_ADDRESS = {4: "projectcalico.org/IPv4Address", 6: "projectcalico.org/IPv6Address"}
ANNOTATION_TUNNEL = {4: "projectcalico.org/IPv4VXLANTunnelAddr", 6: "projectcalico.org/IPv6VXLANTunnelAddr"}
ANNOTATION_FAKE = "kwok.x-k8s.io/node"
ANNOTATION_IPIP = "projectcalico.org/IPv4IPIPTunnelAddr"
ANNOTATION_TUNNEL_MAC = {4: "projectcalico.org/VXLANTunnelMACAddr", 6: "projectcalico.org/VXLANTunnelMACAddrV6"}
ANNOTATION_INTERFACES = "projectcalico.org/Interfaces"
MTU_SETTING = {4: "vxlanMTU", 6: "vxlanMTUV6"}


def tunnel_mac(node: str, family: int = 4) -> str:
    """The MAC Felix gives the tunnel device on NODE: 66: and the first five bytes of the name's SHA-1."""
    name = node if family == 4 else f"{node}-v6"
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).digest()
    return ":".join(["66", *(f"{byte:02x}" for byte in digest[:5])])


def interface_name(namespace: str, pod: str, prefix: str = "cali") -> str:
    """The host side of a pod's veth: the prefix and eleven hex digits."""
    return prefix + hashlib.sha1(f"{namespace}.{pod}".encode(), usedforsecurity=False).hexdigest()[:11]


def gateway(interface: Interface) -> str:
    """The underlay's address in a node's subnet: its first."""
    return str(interface.network[1])


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node as its annotations describe it to every Felix; "" where an annotation is missing."""

    name: str
    interface: Interface | None  # IPv4Address (IPv6Address) annotation, ADDRESS/LENGTH
    tunnel: str
    mac: str
    uplink: str = UPLINK  # the device that holds the address
    ipip: str = ""  # address of its tunl0
    fake: bool = False  # an object of the API and no machine, as KWOK's nodes are

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
    interface: str  # the host side of its veth
    service_account: str = "default"

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """An IPAM block: the node it is affine to ("" for none), and who uses each allocated address."""

    network: Network
    node: str
    users: Mapping[str, str]  # address -> node of its allocation


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """An IPPool as far as routing goes."""

    network: Network
    vxlan_mode: str
    ipip_mode: str = "Never"
    nat_outgoing: bool = False


@dataclass(frozen=True)
class Objects:
    """Everything Felix reads from the API about one address family, at one moment."""

    family: int
    nodes: Mapping[str, NodeRecord]
    pods: tuple[PodRecord, ...]
    blocks: tuple[BlockRecord, ...]
    pools: tuple[PoolRecord, ...]
    felix: Mapping[str, Object]  # FelixConfiguration specs by name
    mesh: bool  # every node peers with every other; else with the router of its subnet, which tells it of no block
    version: tuple[int, int]  # Calico's, (3, 32)
    bird_writes: bool = True  # BIRD is told to write the routes it learns; Felix writes none but those of VXLAN here

    @classmethod
    def read(cls, list_of: Callable[[str], Iterable[Object]], family: int = 4) -> Objects:
        """`list_of("pods")` gives the plain objects of a resource, by its plural."""
        information: Object = next(iter(list_of("clusterinformations")), {"spec": {}})
        bgp: Object = next(iter(list_of("bgpconfigurations")), {"spec": {}})
        felix = {entry["metadata"]["name"]: entry.get("spec", {}) for entry in list_of("felixconfigurations")}
        prefix = str(felix.get("default", {}).get("interfacePrefix", "cali"))

        def ours(resource: str) -> list[Object]:
            return [entry for entry in list_of(resource) if family_of(entry["spec"]["cidr"]) == family]

        return cls(
            family=family,
            nodes={record.name: record for record in (_node(entry, family) for entry in list_of("nodes"))},
            pods=tuple(record for entry in list_of("pods") if (record := _pod(entry, family, prefix))),
            blocks=tuple(_block(entry) for entry in ours("ipamblocks")) or _pod_cidrs(list_of("nodes"), family),
            pools=tuple(
                PoolRecord(
                    ip_network(entry["spec"]["cidr"]),
                    entry["spec"].get("vxlanMode", "Never"),
                    entry["spec"].get("ipipMode", "Never"),
                    bool(entry["spec"].get("natOutgoing")),
                )
                for entry in ours("ippools")
            ),
            felix=felix,
            mesh=bool(bgp.get("spec", {}).get("nodeToNodeMeshEnabled", True)),
            version=_version(information["spec"].get("calicoVersion", "")),
            bird_writes=bgp.get("spec", {}).get("programClusterRoutes") not in ("Disabled", "EnabledIPIPOnly"),
        )

    @property
    def tunnels(self) -> bool:
        """Does any pool tunnel?"""
        return any(pool.vxlan_mode != "Never" for pool in self.pools)

    def setting(self, node: str, name: str, default: Any) -> Any:
        """A FelixConfiguration field, the node's own before the cluster's."""
        for source in (f"node.{node}", "default"):
            if name in self.felix.get(source, {}):
                return self.felix[source][name]
        return default

    def tunnel_mtu(self, node: str, uplink_mtu: int) -> int:
        """Of the tunnel device on a node."""
        return int(self.setting(node, MTU_SETTING[self.family], 0)) or uplink_mtu - VXLAN_OVERHEAD[self.family]

    def pool_of(self, address: Address) -> PoolRecord | None:
        """The smallest that holds it."""
        holding = [pool for pool in self.pools if address in pool.network]
        return max(holding, key=lambda pool: pool.network.prefixlen, default=None)

    def block_of(self, address: str) -> BlockRecord | None:
        """The block that holds an address."""
        if not address:
            return None
        return next((block for block in self.blocks if ip_address(address) in block.network), None)


@dataclass(frozen=True, slots=True)
class TunnelDevice:
    """vxlan.calico or vxlan-v6.calico as it should be."""

    name: str
    mac: str
    address: str  # without a length; always /32 (/128) on the device
    local: str
    parent: str = UPLINK
    mtu: int = UPLINK_MTU - VXLAN_OVERHEAD[4]
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


def pod_mtu(families: Iterable[Objects], node: str, uplink_mtu: int = UPLINK_MTU) -> int:
    """What CNI gives a pod: the smallest of all tunnels that may be used, else the uplink's."""
    found = [uplink_mtu]
    for objects in families:
        found += [objects.tunnel_mtu(node, uplink_mtu)] if objects.tunnels else []
        found += [uplink_mtu - IPIP_OVERHEAD for pool in objects.pools if pool.ipip_mode != "Never"]
    return min(found)


def intent(objects: Objects, name: str, before: TunnelDevice | None = None, uplink_mtu: int = UPLINK_MTU) -> Intent:
    """`before` is the device Felix programmed last: it keeps it when the node's own tunnel address is taken away."""
    me = objects.nodes[name]
    device = _device(objects, me, before, uplink_mtu)
    mtu = device.mtu if device and objects.version >= (3, 31) else 0
    others = {peer.name: peer for peer in objects.nodes.values() if peer.name != name and peer.address}
    peers = [peer for peer in others.values() if peer.tunnel]
    # Of two nodes that claim one tunnel address, the one IPAM gave it to keeps the neighbor entry (observed).
    peers.sort(key=lambda peer: _owns(objects, peer))
    own = int(objects.setting(name, "deviceRouteProtocol", BOOT))
    other = FELIX if own == BOOT else own  # of routes on devices that are not Felix's
    single = 32 if objects.family == 4 else 128
    link, common = (LINK, 0) if objects.family == 4 else (GLOBAL, V6_METRIC)
    routes: dict[str, Route] = {}

    def put(destination: str, **how: Any) -> None:
        routes[destination] = Route(destination, **{"metric": common, **how})

    def mode_of(destination: str) -> str:
        pool = objects.pool_of(ip_address(destination.partition("/")[0]))
        return pool.vxlan_mode if pool else "Never"

    def ipip_mode_of(destination: str) -> str:
        pool = objects.pool_of(ip_address(destination.partition("/")[0]))
        return pool.ipip_mode if pool else "Never"

    ipip_by_felix = objects.version >= (3, 33)

    def towards(destination: str, peer: NodeRecord, via: str, link_scope: bool) -> None:
        mode = mode_of(destination)
        if mode == "CrossSubnet" and me.interface and ip_address(peer.address) in me.interface.network:
            put(destination, gateway=peer.address, device=me.uplink, protocol=other, onlink=True)
        elif mode != "Never" and device and peer.tunnel:
            if link_scope:
                put(destination, device=device.name, protocol=own, scope=link, mtu=mtu)
            else:
                put(destination, gateway=via, device=device.name, protocol=own, onlink=True, mtu=mtu)
        elif ipip_mode_of(destination) != "Never":
            near = me.interface and ip_address(peer.address) in me.interface.network
            by_uplink = near and ipip_mode_of(destination) == "CrossSubnet"
            by = other if ipip_by_felix else BIRD
            device_mtu = uplink_mtu - IPIP_OVERHEAD if ipip_by_felix and not by_uplink else 0
            towards_device = me.uplink if by_uplink else IPIP_DEVICE
            put(destination, gateway=peer.address, device=towards_device, protocol=by, onlink=True, mtu=device_mtu)
        elif mode == "Never" and not link_scope and objects.mesh and objects.bird_writes:
            put(destination, gateway=peer.address, device=me.uplink, protocol=BIRD)

    for block in objects.blocks:
        bird = mode_of(str(block.network)) == "Never"
        if ipip_by_felix and ipip_mode_of(str(block.network)) != "Never":
            bird = False
        if block.node == name:
            if block.network.prefixlen < single:
                put(str(block.network), kind="blackhole", protocol=BIRD if bird else other)
        elif block.node in others:
            towards(str(block.network), others[block.node], others[block.node].tunnel, False)
        for address, user in block.users.items():
            if user != block.node and user in others and address != others[user].tunnel:
                towards(f"{address}/{single}", others[user], others[user].tunnel, False)
    for peer in peers:
        holder = objects.block_of(peer.tunnel)
        # 3.30 and 3.31 also write this route for a tunnel address in the peer's own block, where it does no harm.
        foreign = holder is None or holder.node != peer.name or holder.network.prefixlen == single
        if foreign or (3, 30) <= objects.version < (3, 32):
            towards(f"{peer.tunnel}/{single}", peer, "", True)
    if not objects.mesh and me.interface:
        for pool in objects.pools:
            if pool.vxlan_mode == "Never":
                put(str(pool.network), gateway=gateway(me.interface), device=me.uplink, protocol=BIRD)

    metric = 1024 if objects.version >= (3, 32) else common
    mine = [pod for pod in objects.pods if pod.node == name]
    for pod in mine:
        put(f"{pod.address}/{single}", device=pod.interface, protocol=own, scope=link, metric=metric)
    return Intent(
        device=device,
        routes=frozenset(routes.values()),
        neighbors={peer.tunnel: peer.mac for peer in peers} if device else {},
        fdb={peer.mac: peer.address for peer in peers} if device else {},
        endpoints={pod.interface: pod.address for pod in mine},
    )


def _device(objects: Objects, me: NodeRecord, before: TunnelDevice | None, uplink_mtu: int) -> TunnelDevice | None:
    if not objects.tunnels:
        return None
    if not me.address or not me.tunnel:
        return before
    wanted = TunnelDevice(
        name=TUNNEL_DEVICES["vxlan", objects.family],
        mac=me.mac,
        address=me.tunnel,
        local=me.address,
        parent=me.uplink,
        mtu=objects.tunnel_mtu(me.name, uplink_mtu),
    )
    return replace(
        wanted,
        vni=objects.setting(me.name, "vxlanVNI", wanted.vni),
        port=objects.setting(me.name, "vxlanPort", wanted.port),
    )


def _owns(objects: Objects, node: NodeRecord) -> bool:
    block = objects.block_of(node.tunnel)
    return block is not None and block.users.get(node.tunnel) == node.name


def _node(entry: Object, family: int) -> NodeRecord:
    metadata = entry["metadata"]
    annotations = metadata.get("annotations") or {}
    written = annotations.get(ANNOTATION_ADDRESS[family], "")
    interface = ip_interface(written) if written else None
    return NodeRecord(
        name=metadata["name"],
        interface=interface,
        tunnel=annotations.get(ANNOTATION_TUNNEL[family], ""),
        mac=annotations.get(ANNOTATION_TUNNEL_MAC[family]) or tunnel_mac(metadata["name"], family),
        ipip=annotations.get(ANNOTATION_IPIP, "") if family == 4 else "",
        uplink=_holder(annotations.get(ANNOTATION_INTERFACES, "[]"), str(interface.ip) if interface else ""),
        fake=annotations.get(ANNOTATION_FAKE) == "fake",
    )


def _holder(interfaces: str, address: str) -> str:
    """The device that holds the address, by the annotation calico-node writes of all of them; else the first."""
    found = json.loads(interfaces)
    return next(
        (one["name"] for one in found if address in one.get("addresses", ())), found[0]["name"] if found else UPLINK
    )


def _pod(entry: Object, family: int, prefix: str) -> PodRecord | None:
    metadata, spec, status = entry["metadata"], entry.get("spec", {}), entry.get("status", {})
    annotations = metadata.get("annotations") or {}
    node = spec.get("nodeName", "")
    finished = status.get("phase") in ("Succeeded", "Failed")
    torn_down = metadata.get("deletionTimestamp") and annotations.get("cni.projectcalico.org/podIP") == ""
    if not node or spec.get("hostNetwork") or finished or torn_down:
        return None
    given = [one["ip"] for one in status.get("podIPs") or []] or [status.get("podIP") or ""]
    if not any(given):
        given = [one.partition("/")[0] for one in annotations.get("cni.projectcalico.org/podIPs", "").split(",")]
    address = next((ip for ip in given if ip and family_of(ip) == family), "")
    if not address:
        return None
    interface = interface_name(metadata["namespace"], metadata["name"], prefix)
    account = spec.get("serviceAccountName") or "default"
    return PodRecord(metadata["namespace"], metadata["name"], node, address, interface, account)


def _block(entry: Object) -> BlockRecord:
    spec = entry["spec"]
    network = ip_network(spec["cidr"])
    kind, _, owner = (spec.get("affinity") or "").partition(":")
    users = {}
    for ordinal, index in enumerate(spec["allocations"]):
        if index is not None:
            attributes = spec["attributes"][index].get("secondary") or {}
            users[str(network[ordinal])] = attributes.get("node", "")
    return BlockRecord(network, owner if kind == "host" else "", users)


def _pod_cidrs(nodes: Iterable[Object], family: int) -> tuple[BlockRecord, ...]:
    """With host-local IPAM there are no blocks, and Calico takes each node's range for one."""
    return tuple(
        BlockRecord(ip_network(cidr), node["metadata"]["name"], {})
        for node in nodes
        for cidr in node.get("spec", {}).get("podCIDRs") or ()
        if family_of(cidr) == family
    )


def _version(text: str) -> tuple[int, int]:
    numbers = text.lstrip("v").split(".")
    try:
        return int(numbers[0]), int(numbers[1])
    except (IndexError, ValueError):
        return (3, 32)
