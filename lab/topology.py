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
import os
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from pathlib import Path

from lab import ipip, traffic_control
from lab.intent import (
    IPIP_DEVICE,
    IPIP_OVERHEAD,
    UPLINK,
    UPLINK_MTU,
    V6_METRIC,
    Interface,
    Objects,
    PodRecord,
    gateway,
    pod_mtu,
)
from lab.kernel import BOOT, DEFAULT, GLOBAL, HOST, KERNEL, LINK, LOCAL, MAIN, Kernel, Route
from lab.namespaces import Namespace
from lab.wire import set_checksum_offload

BRIDGE = "br0"
PASSIVE_BRIDGE = {"br_stp_state": 0, "br_forward_delay": 0, "br_mcast_snooping": 0}
POD_GATEWAY = "169.254.1.1"
POD_GATEWAY6 = "fe80::ecee:eeff:feee:eeee"  # the link-local address that the MAC below makes
POD_GATEWAYS = {4: POD_GATEWAY, 6: POD_GATEWAY6}
POD_INTERFACE_MAC = "ee:ee:ee:ee:ee:ee"
SWITCHES = {
    "ipv4": ("rp_filter", "forwarding", "proxy_arp", "route_localnet", "accept_local", "arp_ignore"),
    "ipv6": ("forwarding", "proxy_ndp", "disable_ipv6"),
}
# A permanent neighbor is somebody's doing; one that did not answer is asked again only a second later.
BY_SOMEBODY = ("PERMANENT", "INCOMPLETE", "FAILED")
RULES = {4: {(0, LOCAL), (32766, MAIN), (32767, 253)}, 6: {(0, LOCAL), (32766, MAIN)}}
WITHOUT_COLLISIONS = ("default", "all")  # a lab's addresses are nobody else's: no second of waiting for objections


def uplink_mac(address: str) -> str:
    """02:00 and the four bytes of the node's IPv4 address, or the last four of an IPv6 one."""
    last = ip_address(address).packed[-4:]
    return ":".join(["02", "00", *(f"{byte:02x}" for byte in last)])


@dataclass
class NodeMachine:
    """One node's namespace."""

    name: str
    interfaces: dict[int, Interface]  # by family
    port: str  # its end of the cable in the underlay
    kernel: Kernel
    uplink: str = UPLINK
    slaves: tuple[str, ...] = ()  # the network cards below an uplink that has none of its own; the first is in use
    mtu: int = UPLINK_MTU
    ipip: str = ""  # address of its tunl0; "" for none
    devices: frozenset[str] = frozenset()  # that were there when the lab came up

    @property
    def address(self) -> str:
        """Where its probe is reached: the first of its families."""
        return str(self.interfaces[min(self.interfaces)].ip)

    def own_routes(self, family: int) -> frozenset[Route]:
        """What its owner configured."""
        if family not in self.interfaces:
            return frozenset()
        via, metric = gateway(self.interfaces[family]), V6_METRIC if family == 6 else 0
        return frozenset({Route(DEFAULT[family], gateway=via, device=self.uplink, protocol=BOOT, metric=metric)})


@dataclass
class PodMachine:
    """One pod's namespace and the veth that leads to it."""

    record: PodRecord
    addresses: dict[int, str]  # by family
    node: NodeMachine
    kernel: Kernel
    mtu: int


class Topology:
    """All machines. Blocking; to be used from one thread."""

    def __init__(self, uplink_mtu: int = UPLINK_MTU, slaves: tuple[str, ...] = ()) -> None:
        """slaves: as NodeMachine.slaves, of every node."""
        self.uplink_mtu = uplink_mtu
        self.slaves = slaves
        self.underlay = Kernel(Namespace.here("underlay"))
        self.nodes: dict[str, NodeMachine] = {}
        self.pods: dict[str, PodMachine] = {}
        self._switches: dict[str, dict[str, str]] = {}

    def build(self, families: Mapping[int, Objects]) -> None:
        """Makes a namespace for every node that has an address and is no fake, and every pod on it. Raises OSError."""
        underlay = self.underlay
        _expect_no_collisions(underlay)
        underlay.set_link("lo", up=True)
        underlay.add_link(ifname=BRIDGE, kind="bridge", state="up", **PASSIVE_BRIDGE)
        underlay.namespace.set_sysctl("ipv4/ip_forward", "1")
        underlay.namespace.set_sysctl("ipv6/conf/all/forwarding", "1")
        for name in families[4].nodes:
            interfaces = {
                family: interface for family, seen in families.items() if (interface := seen.nodes[name].interface)
            }
            if interfaces and not families[4].nodes[name].fake:
                uplinks = [families[family].nodes[name].uplink for family in interfaces]
                self._add_node(name, interfaces, uplinks[0], families[4].nodes[name].ipip)
        pods: dict[str, PodRecord] = {}
        addresses: dict[str, dict[int, str]] = {}
        for family, seen in families.items():
            for pod in seen.pods:
                pods.setdefault(pod.full_name, pod)
                addresses.setdefault(pod.full_name, {})[family] = pod.address
        for name, pod in pods.items():
            if pod.node in self.nodes:
                mtu = pod_mtu(families.values(), pod.node, self.uplink_mtu)
                self._add_pod(pod, addresses[name], mtu)

    def router(self) -> str:
        """The underlay's address in the first node's subnet."""
        interfaces = next(iter(self.nodes.values())).interfaces
        return gateway(interfaces[min(interfaces)])

    def remember_switches(self) -> None:
        """How every sysctl stands now, Felix's included, is how `restore` will put it; no other device stays."""
        for node in self.nodes.values():
            node.devices = frozenset(node.kernel.links())
        for namespace in self._namespaces():
            with namespace.entered():
                self._switches[namespace.name] = {name: _read(name) for name in _switch_files()}

    def _namespaces(self) -> Iterator[Namespace]:
        yield from (node.kernel.namespace for node in self.nodes.values())
        yield from (pod.kernel.namespace for pod in self.pods.values())

    def restore_switches(self) -> None:
        """Of the interfaces that are there."""
        for namespace in self._namespaces():
            with namespace.entered():
                for name, value in self._switches[namespace.name].items():
                    with contextlib.suppress(FileNotFoundError):
                        if _read(name) != value:
                            Path(name).write_text(value)

    def restore(self) -> None:
        """Puts back whatever somebody took away, and removes what somebody added, but for firewalls."""
        for node in self.nodes.values():
            self._shape_node(node)
            with node.kernel.namespace.entered():
                for _, device in socket.if_nameindex():
                    traffic_control.clear(device)
        for pod in self.pods.values():
            self._shape_pod(pod)

    def kernels(self) -> list[Kernel]:
        """Of every machine, the underlay's among them."""
        nodes, pods = self.nodes.values(), self.pods.values()
        return [self.underlay, *(node.kernel for node in nodes), *(pod.kernel for pod in pods)]

    def _add_node(self, name: str, interfaces: dict[int, Interface], uplink: str, tunnel: str) -> None:
        for family, interface in interfaces.items():
            network = f"{gateway(interface)}/{interface.network.prefixlen}"
            if network not in self.underlay.addresses(BRIDGE, family):
                self.underlay.add_address(BRIDGE, network)
        kernel = Kernel(Namespace.create(name))
        _expect_no_collisions(kernel)
        port = f"port{len(self.nodes) + 1}"
        self.nodes[name] = NodeMachine(name, interfaces, port, kernel, uplink, self.slaves, self.uplink_mtu, tunnel)
        self._shape_node(self.nodes[name])

    def _add_pod(self, record: PodRecord, addresses: dict[int, str], mtu: int) -> None:
        """As the CNI plugin does."""
        kernel = Kernel(Namespace.create(f"cni-{uuid.uuid4()}"))
        _expect_no_collisions(kernel)
        machine = PodMachine(record, addresses, self.nodes[record.node], kernel, mtu)
        self.pods[record.full_name] = machine
        self._shape_pod(machine)

    def remove_pod_interface(self, name: str) -> None:
        """As the CNI plugin does when a pod ends: the veth goes. Its namespace stays, so that it can come back."""
        pod = self.pods[name]
        pod.node.kernel.delete_link(pod.record.interface)

    @contextlib.contextmanager
    def at_cable(self, node: str) -> Iterator[str]:
        """The calling thread is in the underlay; gives the device by which packets of a node come in there."""
        with self.underlay.namespace.entered():
            yield self.nodes[node].port

    def narrow_cable(self, node: str, mtu: int) -> None:
        """The underlay's end of a node's cable takes no larger packets than this; the node does not see it."""
        self.underlay.set_link(self.nodes[node].port, mtu=mtu)

    def _shape_node(self, node: NodeMachine) -> None:
        kernel, uplink_name = node.kernel, node.uplink
        if 4 in node.interfaces:
            kernel.namespace.set_sysctl("ipv4/ip_forward", "1")
        if 6 in node.interfaces:
            kernel.namespace.set_sysctl("ipv6/conf/all/forwarding", "1")
        for name in kernel.links().keys() - node.devices if node.devices else ():
            kernel.delete_link(name)
        links = kernel.links()
        if not links["lo"].up:
            kernel.set_link("lo", up=True)
        if node.slaves and uplink_name not in links:
            kernel.add_link(ifname=uplink_name, kind="bridge", state="up", **PASSIVE_BRIDGE)
        for number, card in enumerate(node.slaves or (uplink_name,)):
            if card not in links:
                self._plug(node, card, node.port if number == 0 else f"{node.port}-{number}")
        uplink = kernel.links()[uplink_name]
        if uplink.mtu != node.mtu:
            kernel.set_link(uplink_name, mtu=node.mtu)
        if uplink.mac != uplink_mac(node.address):
            kernel.set_link(uplink_name, mac=uplink_mac(node.address))
        if not uplink.up:
            kernel.set_link(uplink_name, up=True)
        with kernel.namespace.entered():
            set_checksum_offload(uplink_name, True)
        port = self.underlay.links()[node.port]
        if not port.up:
            self.underlay.set_link(node.port, up=True)
        if port.mtu != node.mtu:
            self.underlay.set_link(node.port, mtu=node.mtu)
        if node.ipip:
            self._shape_tunnel(node)
        for family in (4, 6):
            own = [str(node.interfaces[family])] if family in node.interfaces else []
            _set_addresses(kernel, uplink_name, own, family)
            for address, _, _, state in kernel.neighbors(uplink_name, family):
                if state != "NOARP":  # a MAC learned from somebody else stays for half a minute, and is learned anew
                    kernel.delete_neighbor(uplink_name, address)
            for priority, table, _ in kernel.rules(family):
                if (priority, table) not in RULES[family]:
                    kernel.delete_rule(priority, table, family)
            for route in node.own_routes(family) - set(kernel.routes(family)):
                kernel.put_route(route)

    def _shape_tunnel(self, node: NodeMachine) -> None:
        kernel = node.kernel
        if kernel.link(IPIP_DEVICE) is None:
            ipip.add_device(kernel)
            kernel.set_link(IPIP_DEVICE, mtu=node.mtu - IPIP_OVERHEAD)
        kernel.set_link(IPIP_DEVICE, up=True)
        _set_addresses(kernel, IPIP_DEVICE, [f"{node.ipip}/32"], 4)

    def _plug(self, node: NodeMachine, card: str, port: str) -> None:
        """A network card with its cable. The underlay's end of a standby card's is down."""
        in_use = port == node.port
        self.underlay.delete_link(port)
        peer = {
            "ifname": card,
            "address": uplink_mac(node.address),
            "mtu": node.mtu,
            "net_ns_fd": node.kernel.namespace.descriptor,
        }
        self.underlay.add_link(
            ifname=port,
            kind="veth",
            mtu=node.mtu,
            master=self.underlay.index(BRIDGE),
            state="up" if in_use else "down",
            peer=peer,
        )
        if node.slaves:
            node.kernel.namespace.set_sysctl(f"ipv6/conf/{card}/disable_ipv6", "1")
            node.kernel.set_link(card, master=node.uplink, up=True)

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
                mtu=pod.mtu,
                txqlen=0,
                state="up",
                peer={"ifname": UPLINK, "mtu": pod.mtu, "net_ns_fd": inside.namespace.descriptor},
            )
        else:
            if outer.mac != POD_INTERFACE_MAC:
                host.set_link(interface, mac=POD_INTERFACE_MAC)
            if outer.mtu != pod.mtu:
                host.set_link(interface, mtu=pod.mtu)
            if not outer.up:
                host.set_link(interface, up=True)
            if outer.txqlen:  # of a queue that somebody put there, and that is gone
                host.set_link(interface, txqlen=0)
        if f"{POD_GATEWAY6}/64" not in host.addresses(interface, 6):
            host.namespace.set_sysctl(f"ipv6/conf/{interface}/disable_ipv6", "0")
            host.add_address(interface, f"{POD_GATEWAY6}/64")
        eth0 = inside.links()[UPLINK]
        if eth0.mtu != pod.mtu:
            inside.set_link(UPLINK, mtu=pod.mtu)
        if not eth0.up:
            inside.set_link(UPLINK, up=True)
        own = pod.addresses
        _set_addresses(inside, UPLINK, [f"{own[4]}/32"] if 4 in own else [], 4)
        _set_addresses(inside, UPLINK, [f"{own[6]}/128"] if 6 in own else [], 6)
        default = Route(DEFAULT[4], gateway=POD_GATEWAY, device=UPLINK)
        _only_routes(inside, (Route(f"{POD_GATEWAY}/32", device=UPLINK, scope=LINK), default) if 4 in own else (), 4)
        default = Route(DEFAULT[6], gateway=POD_GATEWAY6, device=UPLINK, scope=GLOBAL, metric=V6_METRIC)
        _only_routes(inside, (default,) if 6 in own else (), 6)
        for family in (4, 6):
            for address, device, _, state in inside.neighbors(family=family):
                if state in BY_SOMEBODY:
                    inside.delete_neighbor(device, address)
            for address, _, _, state in host.neighbors(interface, family):
                if state in BY_SOMEBODY:
                    host.delete_neighbor(interface, address)

    def remove_foreign_routes(self, node: str, wanted: Iterable[Route], family: int) -> None:
        """Leaves the owner's routes, `wanted` ones and the kernel's own."""
        machine = self.nodes[node]
        _only_routes(machine.kernel, (*machine.own_routes(family), *wanted), family, delete_only=True)


def _expect_no_collisions(kernel: Kernel) -> None:
    for name in WITHOUT_COLLISIONS:
        kernel.namespace.set_sysctl(f"ipv6/conf/{name}/accept_dad", "0")


def _read(name: str) -> str:
    """Of some hundred switches, one after the other: a pathlib.Path takes longer than the kernel. Raises OSError."""
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 4096).decode()
    finally:
        os.close(descriptor)


def _switch_files() -> list[str]:
    """`all` and `default` first: writing to one of them changes the others."""
    found = ["/proc/sys/net/ipv4/ip_forward"]
    for group, switches in SWITCHES.items():
        interfaces = Path(f"/proc/sys/net/{group}/conf").iterdir()
        for interface in sorted(interfaces, key=lambda path: path.name not in ("all", "default")):
            found += [str(interface / switch) for switch in switches]
    return found


def _set_addresses(kernel: Kernel, device: str, wanted: list[str], family: int) -> None:
    """Link-local ones are the kernel's own business."""
    present = [one for one in kernel.addresses(device, family) if not ip_interface(one).is_link_local]
    for address in wanted:
        if address not in present:
            kernel.add_address(device, address)
    for address in present:
        if address not in wanted:
            kernel.delete_address(device, address)


def _only_routes(kernel: Kernel, wanted: Iterable[Route], family: int, delete_only: bool = False) -> None:
    expected = {route.key: route for route in wanted}
    present = set()
    for route in kernel.routes(family):
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
