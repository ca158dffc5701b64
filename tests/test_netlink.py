"""What the kernel shows of links, routes, neighbors and sockets, and how it refuses, on a kernel made to hold them."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from node_probe.collectors.pod import listening, printed
from node_probe.netlink import Netlink, NetlinkError, Route, Sockets, replace_neighbor
from tests.namespaces import in_namespaces
from tests.two_nodes import BLOCK, CART_INTERFACE, DB, MAC, NODE, TUNNEL, TwoNodes, echo

ROUTES = 5_000


def refusal(question: Any) -> str:
    with pytest.raises(NetlinkError) as refused:
        question()
    return refused.value.name


@in_namespaces
def test_a_link_is_read_with_its_tunnel_details() -> None:
    nodes = TwoNodes()
    with Netlink() as kernel:
        tunnel = kernel.link(TUNNEL)
        assert (tunnel.up, tunnel.lower_up, tunnel.operstate) == (True, True, "UNKNOWN")
        assert (tunnel.mac, tunnel.mtu, tunnel.kind) == (MAC["a"], 1450, "vxlan")
        assert (tunnel.vni, tunnel.vxlan_port, tunnel.vxlan_local) == (4096, 4789, NODE["a"])
        assert kernel.link(index=tunnel.link).name == "eth0"
        assert kernel.link(index=tunnel.index) == tunnel
        pod = kernel.link(CART_INTERFACE)
        assert (pod.kind, pod.vni, pod.vxlan_port, pod.vxlan_local) == ("veth", -1, -1, "")
        assert pod.link == nodes.index("cart", "eth0")
        assert kernel.namespace_id(nodes.cart.descriptor) == pod.link_namespace >= 0
        nodes.at("a", lambda ip: ip.link("set", index=tunnel.index, state="down"))
        assert (kernel.link(TUNNEL).up, kernel.link(TUNNEL).operstate) == (False, "DOWN")


@in_namespaces
def test_addresses_and_their_holder() -> None:
    nodes = TwoNodes()
    with Netlink() as kernel:
        tunnel, uplink = kernel.link(TUNNEL), kernel.link("eth0")
        assert [(one.address, one.length) for one in kernel.addresses(tunnel.index)] == [(BLOCK["a"], 32)]
        assert kernel.holder(NODE["a"]) == uplink
        assert kernel.holder(NODE["b"]) is None
        nodes.at("a", lambda ip: ip.link("set", index=uplink.index, state="down"))
        held = kernel.holder(NODE["a"])
        assert held is not None and not held.up, "a device that is down still holds its address"


@in_namespaces
def test_the_matching_entry_of_a_route_is_found() -> None:
    nodes = TwoNodes()
    with Netlink() as kernel:
        tunnel = kernel.link(TUNNEL).index
        block = Route("unicast", BLOCK["b"], 26, BLOCK["b"], tunnel, 254, 80, 0, 0, True)
        assert kernel.route(DB) == block
        assert kernel.route(DB, source="10.244.1.2", incoming=kernel.link(CART_INTERFACE).index) == block
        assert kernel.route("8.8.8.8").prefix == "0.0.0.0/0"
        pod = kernel.route("10.244.1.2")
        assert (pod.prefix, pod.next_hop, pod.scope, pod.metric) == ("10.244.1.2/32", "", 253, 1024)
        assert kernel.route(NODE["a"]).type == "local"
        nodes.at("a", lambda ip: ip.route("add", dst=f"{DB}/32", gateway="172.30.0.12", oif=kernel.link("eth0").index))
        assert (kernel.route(DB).prefix, kernel.route(DB).next_hop) == (f"{DB}/32", "172.30.0.12")
        two = [{"gateway": "172.30.0.12"}, {"gateway": "172.30.0.13"}]
        nodes.at("a", lambda ip: ip.route("add", dst="10.9.0.0/16", multipath=two))
        several = kernel.route("10.9.1.1")
        assert several.prefix == "10.9.0.0/16" and several.next_hop in ("172.30.0.12", "172.30.0.13")


@in_namespaces
def test_refused_lookups_are_told_apart() -> None:
    nodes = TwoNodes()
    with Netlink() as kernel:
        for kind, target, name in (
            ("blackhole", "10.7.0.0/16", "EINVAL"),
            ("unreachable", "10.8.0.0/16", "EHOSTUNREACH"),
            ("prohibit", "10.9.0.0/16", "EACCES"),
        ):
            nodes.at("a", lambda ip, kind=kind, target=target: ip.route("add", dst=target, type=kind, proto=4))
            address = target.replace("0.0/16", "3.3")
            assert refusal(lambda address=address: kernel.route(address)) == name
            entry = kernel.refusing_route(address, getattr(errno, name))
            assert entry is not None
            assert (entry.type, entry.prefix, entry.protocol, entry.table) == (kind, target, 4, 254)
        nodes.at("a", lambda ip: ip.route("add", dst="10.7.3.0/24", type="blackhole", proto=80))
        entry = kernel.refusing_route("10.7.3.3", errno.EINVAL)
        assert entry is not None and entry.prefix == "10.7.3.0/24", "the longest one refuses"
        assert kernel.refusing_route("9.9.9.9", errno.EINVAL) is None
        assert kernel.refusing_route("10.7.3.3", errno.ENETUNREACH) is None, "no route is no entry"
        nodes.at("a", lambda ip: ip.route("del", dst="0.0.0.0/0"))
        assert refusal(lambda: kernel.route("8.8.8.8")) == "ENETUNREACH"


@in_namespaces
def test_neighbors_and_forwarding_entries() -> None:
    nodes = TwoNodes()
    with Netlink() as kernel:
        tunnel = kernel.link(TUNNEL).index
        entry = kernel.neighbor(tunnel, BLOCK["b"])
        assert (entry.address, entry.mac, entry.state) == (BLOCK["b"], MAC["b"], "PERMANENT")
        assert kernel.fdb(tunnel, MAC["b"]).address == NODE["b"]
        assert refusal(lambda: kernel.neighbor(tunnel, "10.244.3.0")) == "ENOENT"
        assert refusal(lambda: kernel.fdb(tunnel, "66:00:00:00:00:99")) == "ENOENT"
        nodes.at("a", lambda ip: ip.neigh("add", dst="10.244.3.0", ifindex=tunnel, state=32))  # FAILED
        assert (kernel.neighbor(tunnel, "10.244.3.0").mac, kernel.neighbor(tunnel, "10.244.3.0").state) == (
            "",
            "FAILED",
        )


@in_namespaces
def test_absent_devices_and_senseless_addresses() -> None:
    TwoNodes()
    with Netlink() as kernel:
        assert refusal(lambda: kernel.link("vxlan.other")) == "ENODEV"
        assert refusal(lambda: kernel.link(index=4242)) == "ENODEV"
        assert refusal(lambda: kernel.neighbor(4242, DB)) == "ENODEV"
        with pytest.raises(ValueError, match="not an IP address"):
            kernel.route("10.244.2")


@in_namespaces
def test_ipv6_is_read_by_the_same_code() -> None:
    nodes = TwoNodes()
    with Netlink() as kernel:
        nodes.sysctl("a", f"net/ipv6/conf/{TUNNEL}/disable_ipv6", "0")
        tunnel = kernel.link(TUNNEL).index
        nodes.at("a", lambda ip: ip.addr("add", index=tunnel, address="fd00:1::1", prefixlen=128))
        nodes.at(
            "a",
            lambda ip: ip.route("add", family=socket.AF_INET6, dst="fd00:2::/122", oif=tunnel, metrics={"mtu": 1430}),
        )
        nodes.at(
            "a",
            lambda ip: ip.neigh("replace", dst="fd00:2::2", lladdr=MAC["b"], ifindex=tunnel, state=128, family=10),
        )
        assert "fd00:1::1" in [one.address for one in kernel.addresses(tunnel, socket.AF_INET6)]
        found = kernel.route("fd00:2::2")
        assert (found.prefix, found.device, found.metric) == ("fd00:2::/122", tunnel, 1024)
        assert kernel.neighbor(tunnel, "fd00:2::2").mac == MAC["b"]


@in_namespaces
def test_a_neighbor_is_replaced_for_good() -> None:
    nodes = TwoNodes()
    with Netlink() as kernel:
        tunnel = kernel.link(TUNNEL).index
        nodes.at(
            "a", lambda ip: ip.neigh("replace", dst=BLOCK["b"], lladdr="66:00:00:00:00:99", ifindex=tunnel, state=4)
        )
        asyncio.run(asyncio.to_thread(replace_neighbor, TUNNEL, BLOCK["b"], MAC["b"]))  # as an async fixer calls it
        entry = kernel.neighbor(tunnel, BLOCK["b"])
        assert (entry.mac, entry.state) == (MAC["b"], "PERMANENT")
        replace_neighbor(TUNNEL, "10.244.3.0", MAC["b"])
        assert kernel.neighbor(tunnel, "10.244.3.0").state == "PERMANENT", "an absent one is made"
        assert refusal(lambda: replace_neighbor("vxlan.other", BLOCK["b"], MAC["b"])) == "ENODEV"


@in_namespaces
def test_listening_sockets_are_the_printed_ones() -> None:
    nodes = TwoNodes()
    echo(nodes.db, 8080)
    echo(nodes.db, 9090, "127.0.0.1")

    def dual() -> list[socket.socket]:
        found = []
        for address, port in (("::", 7070), ("::ffff:10.244.2.2", 6060)):
            one = socket.socket(socket.AF_INET6)
            one.bind((address, port))
            one.listen()
            found.append(one)
        connected = socket.create_connection(("127.0.0.1", 9090))
        return [*found, connected]

    kept = nodes.db.run(dual)
    expected = {
        ("tcp", 8080): ("0.0.0.0",),
        ("udp", 8080): ("0.0.0.0",),
        ("tcp", 9090): ("127.0.0.1",),
        ("tcp", 7070): ("::",),
        ("tcp", 6060): ("10.244.2.2",),
        ("udp", 7070): (),
        ("tcp", kept[-1].getsockname()[1]): (),
    }
    for (protocol, port), addresses in expected.items():
        assert nodes.db.run(lambda p=protocol, n=port: listening(p, n)) == addresses, (protocol, port)
        assert nodes.db.run(lambda p=protocol, n=port: printed(p, n)) == addresses, (protocol, port)
    assert listening("tcp", 8080) == (), "the node itself listens nowhere"
    with pytest.raises(ValueError, match="tcp or udp"):
        listening("sctp", 8080)
    with Sockets() as sockets:
        assert sockets.listening("tcp", 1) == []


@in_namespaces
def test_many_routes_change_nothing_and_leak_nothing() -> None:
    nodes = TwoNodes()

    def add(ip: Any) -> None:
        tunnel = ip.link_lookup(ifname=TUNNEL)[0]
        for number in range(ROUTES):
            third, fourth = divmod(number * 8, 256)
            prefix = f"10.{third // 256 + 100}.{third % 256}.{fourth}/29"
            ip.route("add", dst=prefix, gateway=BLOCK["b"], oif=tunnel, flags=4, proto=80)

    with Netlink() as kernel:
        few = _quickest(kernel)
        nodes.at("a", add)
        descriptors = _descriptors()
        many = _quickest(kernel)
        # A reader that walked the table would be a thousand times slower, not twice.
        assert many < 20 * few, f"{few * 1e6:.0f} us with a few routes, {many * 1e6:.0f} us with {ROUTES}"
        assert kernel.route("10.100.0.9").prefix == "10.100.0.8/29"
        for _ in range(200):
            with Netlink() as another:
                another.link(TUNNEL)
        assert _descriptors() == descriptors


def _quickest(kernel: Netlink) -> float:
    def once() -> float:
        began = time.perf_counter()
        kernel.route(DB)
        kernel.neighbor(tunnel, BLOCK["b"])
        kernel.fdb(tunnel, MAC["b"])
        return time.perf_counter() - began

    tunnel = kernel.link(TUNNEL).index
    return min(once() for _ in range(50))


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@in_namespaces
def test_a_lost_answer_does_not_wait_for_ever_and_a_late_one_confuses_nobody() -> None:
    TwoNodes()
    with Netlink() as kernel:
        kernel._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, b"\0" * 8 + (50_000).to_bytes(8, "little"))
        send = kernel._socket.send
        lost: list[bytes] = []

        class Losing:
            def __getattr__(self, name: str) -> Any:
                return getattr(whole, name)

            def send(self, data: bytes) -> int:
                lost.append(data)
                return len(data)

        whole = kernel._socket
        kernel._socket = Losing()  # type: ignore[assignment]
        assert refusal(lambda: kernel.link("eth0")) == "ETIMEDOUT"
        kernel._socket = whole
        send(lost[0])  # the kernel answers the forgotten question first
        assert kernel.link(TUNNEL).name == TUNNEL


def test_the_probe_does_not_carry_the_writing_library() -> None:
    code = "import node_probe.server, node_probe.answer, sys; print('pyroute2' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert run.stdout.strip() == "False", run.stderr
