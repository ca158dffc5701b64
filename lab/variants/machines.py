"""What other software and other owners leave on the nodes; Calico neither wants it nor minds it."""

from __future__ import annotations

import contextlib

from pyroute2.nftables.main import NFTables

from lab.intent import UPLINK
from lab.kernel import BOOT, DEFAULT, LINK, MAIN, Kernel, Route
from lab.services import ADDRESSES
from lab.topology import NodeMachine, Topology
from lab.variants.variant import furnished

STATIC = 4  # a route protocol
VPN_TABLE, VPN_MARK = 52, 0x80000
IPVS_DEVICE = "kube-ipvs0"
OTHER_SERVICES = {4: ("10.96.0.1", "10.96.0.10"), 6: ("fd00:10:96::1", "fd00:10:96::a")}
STRICT_ARP = {"arp_ignore": "1", "arp_announce": "2"}  # else the nodes would answer for each other's Services
NFPROTO = {"ip": 2, "inet": 1, "ip6": 10}


@furnished()
def busy_host(topology: Topology) -> None:
    """Every node has bridges, routes, rules, addresses and firewall tables of other software."""
    for index, node in enumerate(topology.nodes.values()):
        kernel = node.kernel
        _add_bridge(kernel, "docker0", ["172.17.0.1/16"])
        _add_bridge(kernel, "nodelocaldns", ["169.254.20.10/32"])
        _add_tables(kernel, (("ip", "nat"), ("ip", "filter"), ("inet", "firewalld")))
        if 4 in node.interfaces:
            kernel.add_address(node.uplink, f"192.168.77.{index + 1}/32")
            via = next(iter(node.own_routes(4))).gateway
            for number in range(40):
                kernel.put_route(Route(f"10.{100 + number}.0.0/16", gateway=via, device=node.uplink, protocol=STATIC))
            _add_rule(kernel, 1000, 200, "192.168.0.0/16")
            kernel.put_route(Route("0.0.0.0/0", gateway=via, device=node.uplink, protocol=BOOT, table=200))
        if 6 in node.interfaces:
            _add_rule(kernel, 1000, 200, "fd00:77::/32")


@furnished()
def rules_of_a_vpn(topology: Topology) -> None:
    """Every node has the routing rules of a VPN (Tailscale): all packets look into its table first, which has a few."""
    for node in topology.nodes.values():
        kernel = node.kernel
        if 4 in node.interfaces:
            if VPN_TABLE not in [table for _, table, _ in kernel.rules()]:
                kernel.put_marked_rule(5210, MAIN, VPN_MARK)
                kernel.put_rule(5270, VPN_TABLE, DEFAULT[4])
            for destination in ("100.64.0.0/10", "100.100.100.100/32"):
                kernel.put_route(Route(destination, device=node.uplink, protocol=BOOT, table=VPN_TABLE, scope=LINK))


@furnished()
def kube_proxy_ipvs(topology: Topology) -> None:
    """Every node has all Services' addresses itself, as kube-proxy's ipvs mode does (on an ifb for want of a dummy)."""
    for node in topology.nodes.values():
        kernel = node.kernel
        if kernel.link(IPVS_DEVICE) is None:
            try:  # either is down and asks nobody's address; the lab's kube-proxy does what ipvs would
                kernel.add_link(ifname=IPVS_DEVICE, kind="dummy")
            except OSError:
                kernel.add_link(ifname=IPVS_DEVICE, kind="ifb")
        for family in node.interfaces:
            length = 32 if family == 4 else 128
            for address in (ADDRESSES[family], *OTHER_SERVICES[family]):
                kernel.add_address(IPVS_DEVICE, f"{address}/{length}")
        for switch, value in STRICT_ARP.items():
            kernel.namespace.set_sysctl(f"ipv4/conf/all/{switch}", value)


@furnished()
def flannel_left_behind(topology: Topology) -> None:
    """Every node still has the tunnel device and the routes of the network it had before Calico."""
    for node in topology.nodes.values():
        kernel = node.kernel
        if kernel.link("flannel.1") is None:
            kernel.add_link(ifname="flannel.1", kind="vxlan", vxlan_id=1, vxlan_port=8473, vxlan_learning=0, state="up")
        _add_bridge(kernel, "cni0", ["10.42.0.1/24"])
        if 4 in node.interfaces:
            kernel.put_route(Route("10.42.1.0/24", gateway="10.42.1.0", device="flannel.1", protocol=BOOT, onlink=True))


@furnished()
def pods_older_than_their_mtu(topology: Topology) -> None:
    """One pod on each node was made when the tunnels were smaller."""
    for node in topology.nodes.values():
        old = next((pod for pod in topology.pods.values() if pod.node is node), None)
        if old:
            old.kernel.set_link(UPLINK, mtu=old.mtu - 100)
            node.kernel.set_link(old.record.interface, mtu=old.mtu - 100)


@furnished()
def second_network_of_pods(topology: Topology) -> None:
    """Every pod has a second device, in a network of its own."""
    for number, pod in enumerate(topology.pods.values()):
        _add_bridge(pod.kernel, "net1", [f"10.99.0.{number % 250 + 1}/24"])


@furnished()
def second_network(topology: Topology) -> None:
    """Every node has a second network card, in a network Calico does not use."""
    for number, node in enumerate(topology.nodes.values()):
        _add_bridge(node.kernel, "eth1", [f"192.168.100.{11 + number}/24"])


@furnished()
def missing_blackholes(topology: Topology) -> None:
    """No node has a blackhole route for its own blocks."""
    for node in topology.nodes.values():
        for family in node.interfaces:
            for route in node.kernel.routes(family):
                if route.kind == "blackhole":
                    node.kernel.delete_route(route)


@furnished()
def failed_neighbors(topology: Topology) -> None:
    """Neighbor tables have failed and unfinished entries of addresses nobody has."""
    for node in topology.nodes.values():
        for device, address in _strangers(node):
            node.kernel.put_failed_neighbor(device, address)


def _strangers(node: NodeMachine) -> list[tuple[str, str]]:
    devices = [node.uplink, *(name for name in node.kernel.links() if name.startswith("vxlan"))]
    return [(device, address) for device in devices for address in ("224.0.0.22", "172.30.0.77")]


@furnished(kind="filter", conflicts="no-nat-outgoing")
def strict_filters(topology: Topology) -> None:
    """Strict reverse path filters everywhere, which symmetric paths do not mind: a pod's to a node is one by NAT."""
    _filter(topology, "1")


@furnished(kind="filter")
def loose_filters(topology: Topology) -> None:
    """Loose reverse path filters everywhere."""
    _filter(topology, "2")


def _filter(topology: Topology, value: str) -> None:
    for node in topology.nodes.values():
        for interface in ("all", "default", *node.kernel.links()):
            with contextlib.suppress(FileNotFoundError):
                node.kernel.namespace.set_sysctl(f"ipv4/conf/{interface}/rp_filter", value)


def _add_bridge(kernel: Kernel, name: str, addresses: list[str]) -> None:
    if kernel.link(name) is None:
        kernel.add_link(ifname=name, kind="bridge", state="up")
    for address in addresses:
        kernel.add_address(name, address)


def _add_rule(kernel: Kernel, priority: int, table: int, source: str) -> None:
    family = 6 if ":" in source else 4
    if (priority, table, source) not in kernel.rules(family):
        kernel.put_rule(priority, table, source)


def _add_tables(kernel: Kernel, tables: tuple[tuple[str, str], ...]) -> None:
    with kernel.namespace.entered():
        wire = NFTables()
    try:
        present = {table.get_attr("NFTA_TABLE_NAME") for table in wire.get_tables()}
        for family, name in tables:
            if name not in present:
                wire.table("add", name=name, nfgen_family=NFPROTO[family])
    finally:
        wire.close()
