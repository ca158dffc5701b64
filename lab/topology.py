"""Nodes and pods as network namespaces on one underlay; without it Felix would have no machines to program.

    underlay, where the server lives             br0  172.30.0.1/24 (and .1 of every further node subnet; it routes)
                        ┌──────────────────────────┼──────────────────────────┐
                      port1                      port2                      port3              veth
    node-a            eth0 172.30.0.11           eth0 172.30.0.12           eth0 172.30.0.13
                      vxlan.calico ═════════════ vxlan.calico ═════════════ vxlan.calico      made by lab/felix.py
                      cali1  cali2               cali1  cali2               cali1  cali2       veth
                       │      │                   │      │                   │      │
    pods             eth0    eth0               eth0    eth0               eth0    eth0        10.244.x.y/32

Every pod's default route leads to 169.254.1.1, which nobody has: the cali interface answers for it (proxy ARP).
Everything here is what a machine's owner and the CNI plugin set up; what Felix sets up is lab/felix.py.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path

from lab.intent import UPLINK, UPLINK_MTU, VXLAN_OVERHEAD, NodeRecord, Objects, PodRecord
from lab.kernel import BOOT, HOST, KERNEL, LINK, LOCAL, MAIN, Kernel, Route
from lab.namespaces import Namespace

BRIDGE = "br0"
POD_GATEWAY = "169.254.1.1"
POD_INTERFACE_MAC = "ee:ee:ee:ee:ee:ee"
POD_MTU = UPLINK_MTU - VXLAN_OVERHEAD
SWITCHES = ("rp_filter", "forwarding", "proxy_arp", "route_localnet", "accept_local", "arp_ignore")
RULES = {(0, LOCAL), (32766, MAIN), (32767, 253)}


def uplink_mac(address: str) -> str:
    """02:00 and the four bytes of the node's address."""
    return ":".join(["02", "00", *(f"{int(part):02x}" for part in address.split("."))])


def gateway(interface: IPv4Interface) -> str:
    """The underlay's address in a node's subnet: its first."""
    return str(interface.network[1])


@dataclass
class NodeMachine:
    """One node's namespace."""

    name: str
    interface: IPv4Interface
    port: str  # its end of the cable in the underlay
    kernel: Kernel

    @property
    def address(self) -> str:
        return str(self.interface.ip)

    def own_routes(self) -> frozenset[Route]:
        """What its owner configured."""
        return frozenset({Route("0.0.0.0/0", gateway=gateway(self.interface), device=UPLINK, protocol=BOOT)})


@dataclass
class PodMachine:
    """One pod's namespace and the veth that leads to it."""

    record: PodRecord
    node: NodeMachine
    kernel: Kernel


class Topology:
    """All machines. Blocking; to be used from one thread."""

    def __init__(self) -> None:
        self.underlay = Kernel(Namespace.here("underlay"))
        self.nodes: dict[str, NodeMachine] = {}
        self.pods: dict[str, PodMachine] = {}
        self._switches: dict[str, dict[str, str]] = {}

    def build(self, objects: Objects) -> None:
        """Makes a namespace for every node that has an IPv4Address and every pod on it. Raises OSError."""
        underlay = self.underlay
        underlay.set_link("lo", up=True)
        underlay.add_link(
            ifname=BRIDGE, kind="bridge", br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0, state="up"
        )
        underlay.namespace.set_sysctl("ipv4/ip_forward", "1")
        for record in objects.nodes.values():
            if record.interface:
                self._add_node(record, record.interface)
        for pod in objects.pods:
            if pod.node in self.nodes:
                self.add_pod(pod)

    def remember_switches(self) -> None:
        """How every sysctl stands now, Felix's included, is how `restore` will put it."""
        for namespace in self._namespaces():
            with namespace.entered():
                self._switches[namespace.name] = {name: Path(name).read_text() for name in _switch_files()}

    def _namespaces(self) -> Iterator[Namespace]:
        yield from (node.kernel.namespace for node in self.nodes.values())
        yield from (pod.kernel.namespace for pod in self.pods.values())

    def restore_switches(self) -> None:
        """Of the interfaces that are there."""
        for namespace in self._namespaces():
            with namespace.entered():
                for name, value in self._switches[namespace.name].items():
                    if Path(name).exists() and Path(name).read_text() != value:
                        Path(name).write_text(value)

    def restore(self) -> None:
        """Puts back whatever somebody took away, and removes what somebody added."""
        for node in self.nodes.values():
            node.kernel.flush_firewall()
            self._shape_node(node)
        for pod in self.pods.values():
            pod.kernel.flush_firewall()
            self._shape_pod(pod)

    def _add_node(self, record: NodeRecord, interface: IPv4Interface) -> None:
        network = f"{gateway(interface)}/{interface.network.prefixlen}"
        if network not in self.underlay.addresses(BRIDGE):
            self.underlay.add_address(BRIDGE, network)
        node = NodeMachine(record.name, interface, f"port{len(self.nodes) + 1}", Kernel(Namespace.create(record.name)))
        self.nodes[record.name] = node
        self._shape_node(node)

    def add_pod(self, record: PodRecord) -> None:
        """As the CNI plugin does."""
        machine = PodMachine(record, self.nodes[record.node], Kernel(Namespace.create(f"cni-{uuid.uuid4()}")))
        self.pods[record.full_name] = machine
        self._shape_pod(machine)

    def remove_pod_interface(self, name: str) -> None:
        """As the CNI plugin does when a pod ends: the veth goes. Its namespace stays, so that it can come back."""
        pod = self.pods[name]
        pod.node.kernel.delete_link(pod.record.interface)

    def narrow_cable(self, node: str, mtu: int) -> None:
        """The underlay's end of a node's cable takes no larger packets than this; the node does not see it."""
        self.underlay.set_link(self.nodes[node].port, mtu=mtu)

    def _shape_node(self, node: NodeMachine) -> None:
        kernel = node.kernel
        kernel.namespace.set_sysctl("ipv4/ip_forward", "1")
        links = kernel.links()
        if not links["lo"].up:
            kernel.set_link("lo", up=True)
        if UPLINK not in links:
            self.underlay.delete_link(node.port)
            peer = {
                "ifname": UPLINK,
                "address": uplink_mac(node.address),
                "mtu": UPLINK_MTU,
                "net_ns_fd": kernel.namespace.descriptor,
            }
            self.underlay.add_link(
                ifname=node.port,
                kind="veth",
                mtu=UPLINK_MTU,
                master=self.underlay.index(BRIDGE),
                state="up",
                peer=peer,
            )
        uplink = kernel.links()[UPLINK]
        if uplink.mtu != UPLINK_MTU:
            kernel.set_link(UPLINK, mtu=UPLINK_MTU)
        if uplink.mac != uplink_mac(node.address):
            kernel.set_link(UPLINK, mac=uplink_mac(node.address))
        if not uplink.up:
            kernel.set_link(UPLINK, up=True)
        port = self.underlay.links()[node.port]
        if not port.up:
            self.underlay.set_link(node.port, up=True)
        if port.mtu != UPLINK_MTU:
            self.underlay.set_link(node.port, mtu=UPLINK_MTU)
        _set_addresses(kernel, UPLINK, [str(node.interface)])
        for address, _, _, state in kernel.neighbors(UPLINK):
            if state == "PERMANENT":
                kernel.delete_neighbor(UPLINK, address)
        for priority, table, _ in kernel.rules():
            if (priority, table) not in RULES:
                kernel.delete_rule(priority, table)
        present = set(kernel.routes())
        for route in node.own_routes() - present:
            kernel.put_route(route)

    def _shape_pod(self, pod: PodMachine) -> None:
        host, inside, interface = pod.node.kernel, pod.kernel, pod.record.interface
        links = inside.links()
        if not links["lo"].up:
            inside.set_link("lo", up=True)
        outer = host.link(interface)
        if outer is None or UPLINK not in links:
            host.delete_link(interface)
            inside.delete_link(UPLINK)
            host.add_link(
                ifname=interface,
                kind="veth",
                address=POD_INTERFACE_MAC,
                mtu=POD_MTU,
                txqlen=0,
                state="up",
                peer={"ifname": UPLINK, "mtu": POD_MTU, "net_ns_fd": inside.namespace.descriptor},
            )
        else:
            if outer.mac != POD_INTERFACE_MAC:
                host.set_link(interface, mac=POD_INTERFACE_MAC)
            if outer.mtu != POD_MTU:
                host.set_link(interface, mtu=POD_MTU)
            if not outer.up:
                host.set_link(interface, up=True)
        eth0 = inside.links()[UPLINK]
        if eth0.mtu != POD_MTU:
            inside.set_link(UPLINK, mtu=POD_MTU)
        if not eth0.up:
            inside.set_link(UPLINK, up=True)
        _set_addresses(inside, UPLINK, [f"{pod.record.address}/32"])
        wanted = (
            Route(f"{POD_GATEWAY}/32", device=UPLINK, scope=LINK),
            Route("0.0.0.0/0", gateway=POD_GATEWAY, device=UPLINK),
        )
        _only_routes(inside, wanted)
        for address, device, _, state in inside.neighbors():
            if state == "PERMANENT":
                inside.delete_neighbor(device, address)
        for address, _, _, state in host.neighbors(interface):
            if state == "PERMANENT":
                host.delete_neighbor(interface, address)

    def remove_foreign_routes(self, node: str, wanted: Iterable[Route]) -> None:
        """Leaves the owner's routes, `wanted` ones and the kernel's own."""
        machine = self.nodes[node]
        _only_routes(machine.kernel, (*machine.own_routes(), *wanted), delete_only=True)


def _switch_files() -> list[str]:
    """`all` and `default` first: writing to one of them changes the others."""
    interfaces = sorted(Path("/proc/sys/net/ipv4/conf").iterdir(), key=lambda path: path.name not in ("all", "default"))
    return [
        "/proc/sys/net/ipv4/ip_forward",
        *(str(interface / switch) for interface in interfaces for switch in SWITCHES),
    ]


def _set_addresses(kernel: Kernel, device: str, wanted: list[str]) -> None:
    present = kernel.addresses(device)
    for address in wanted:
        if address not in present:
            kernel.add_address(device, address)
    for address in present:
        if address not in wanted:
            kernel.delete_address(device, address)


def _only_routes(kernel: Kernel, wanted: Iterable[Route], delete_only: bool = False) -> None:
    expected = {route.key: route for route in wanted}
    present = set()
    for route in kernel.routes():
        if route.table == LOCAL or route.protocol == KERNEL or route.scope == HOST:
            continue
        if expected.get(route.key) == route:
            present.add(route.key)
        else:
            with contextlib.suppress(OSError):
                kernel.delete_route(route)
    if not delete_only:
        for route in expected.values():
            if route.key not in present:
                kernel.put_route(route)
