"""What the kernel shows of links, routes, neighbors and sockets, and how it refuses, on a kernel made to hold them."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node_probe.collectors.pod import listening, printed
from node_probe.netlink import Bound, Netlink, Route, Sockets
from node_probe.netlink_messages import NetlinkError
from tests.namespaces import in_namespaces
from tests.two_nodes import (
    AF_INET6,
    BLOCK,
    BLOCK6,
    CART6,
    CART_INTERFACE,
    DB,
    DB6,
    GATEWAY6,
    MAC,
    MAC6,
    NODE,
    NODE6,
    TUNNEL,
    TUNNEL6,
    TwoNodes,
    echo,
)

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
        block = Route("unicast", BLOCK["b"], 26, BLOCK["b"], tunnel, 254, 80, 0, 0, True, BLOCK["a"])
        assert kernel.route(DB) == block
        comes_in = kernel.route(DB, source="10.244.1.2", incoming=kernel.link(CART_INTERFACE).index)
        assert comes_in == replace(block, preferred_source="")
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
        assert several.preferred_source == NODE["a"]
        assert several.several == tuple((one["gateway"], kernel.link("eth0").index) for one in two)


@in_namespaces
def test_refused_lookups_are_told_apart() -> None:
    nodes = TwoNodes()
    with Netlink() as kernel:
        for kind, target, name in (
            ("blackhole", "10.7.0.0/16", "EINVAL"),
            ("unreachable", "10.8.0.0/16", "EHOSTUNREACH"),
            ("prohibit", "10.9.0.0/16", "EACCES"),
            ("throw", "10.10.0.0/16", "ENETUNREACH"),
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
@pytest.mark.parametrize(
    ("wide", "narrow", "address"),
    [("10.7.0.0/16", "10.7.3.0/24", "10.7.3.3"), ("2001:db8::/32", "2001:db8:7::/48", "2001:db8:7::9")],
)
def test_a_next_hop_that_is_a_blackhole_is_the_entry_that_refuses(wide: str, narrow: str, address: str) -> None:
    nodes = TwoNodes(dual=True)

    def add(_: object) -> None:
        family = "-6" if ":" in wide else "-4"
        for words in (
            ("nexthop", "add", "id", "9", "blackhole"),
            ("route", "add", "blackhole", wide),
            ("route", "add", narrow, "nhid", "9", "proto", "static"),
        ):
            subprocess.run(("ip", family, *words), check=True)

    nodes.at("a", add)
    with Netlink() as kernel:
        assert refusal(lambda: kernel.route(address)) == "EINVAL"
        entry = kernel.refusing_route(address, errno.EINVAL)
        assert entry is not None
        assert (entry.type, entry.prefix, entry.protocol, entry.next_hop_object) == ("blackhole", narrow, 4, 9)


@in_namespaces
def test_neighbors_and_forwarding_entries() -> None:
    nodes = TwoNodes()
    with Netlink() as kernel:
        tunnel = kernel.link(TUNNEL).index
        entry = kernel.neighbor(tunnel, BLOCK["b"])
        assert (entry.address, entry.mac, entry.state) == (BLOCK["b"], MAC["b"], "PERMANENT")
        assert kernel.fdb(tunnel, MAC["b"]).address == NODE["b"]
        assert (kernel.fdb(tunnel, MAC["b"]).port, kernel.fdb(tunnel, MAC["b"]).vni) == (-1, -1)
        other = {"ifindex": tunnel, "lladdr": MAC["b"], "dst": NODE["b"], "port": 8472, "vni": 77, "state": 128}
        nodes.at("a", lambda ip: (ip.fdb("del", ifindex=tunnel, lladdr=MAC["b"]), ip.fdb("append", **other)))
        assert (kernel.fdb(tunnel, MAC["b"]).port, kernel.fdb(tunnel, MAC["b"]).vni) == (8472, 77)
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
    nodes = TwoNodes(dual=True)
    with Netlink() as kernel:
        tunnel, pod, uplink = kernel.link(TUNNEL6), kernel.link(CART_INTERFACE), kernel.link("eth0")
        assert (tunnel.vxlan_local, tunnel.link, tunnel.ipv6) == (NODE6["a"], uplink.index, True)
        assert BLOCK6["a"] in [one.address for one in kernel.addresses(tunnel.index, AF_INET6)]
        assert [one.address for one in kernel.addresses(pod.index, AF_INET6)] == [GATEWAY6]
        assert kernel.holder(NODE6["a"]) == kernel.holder("FD00:0172:30:0:0:0:0:B") == uplink
        assert kernel.neighbor(tunnel.index, BLOCK6["b"]).mac == MAC6["b"]
        assert kernel.fdb(tunnel.index, MAC6["b"]).address == NODE6["b"]
        block = Route("unicast", BLOCK6["b"], 122, BLOCK6["b"], tunnel.index, 254, 80, 0, 1024, True, BLOCK6["a"])
        assert kernel.route(DB6) == block
        assert kernel.route(DB6, source=CART6, incoming=pod.index) == replace(block, preferred_source="")
        assert kernel.route("2001:db8::1").prefix == "::/0"
        assert kernel.route(NODE6["a"]).type == "local"
        gone = nodes.cart.run(Netlink)
        default = gone.default_route(AF_INET6)
        assert default is not None and (default.prefix, default.next_hop) == ("::/0", GATEWAY6)
        nodes.at("cart", lambda ip: ip.route("del", family=AF_INET6, dst="::/0"))
        assert gone.default_route(AF_INET6) is None


@in_namespaces
def test_refused_and_divided_lookups_of_ipv6() -> None:
    nodes = TwoNodes(dual=True)

    def add(**route: Any) -> None:
        nodes.at("a", lambda ip: ip.route("add", family=AF_INET6, **route))

    with Netlink() as kernel:
        for number, (kind, name) in enumerate(
            (("blackhole", "EINVAL"), ("unreachable", "EHOSTUNREACH"), ("prohibit", "EACCES")), start=7
        ):
            add(dst=f"2001:db8:{number}::/48", type=kind, proto=4)
            address = f"2001:db8:{number}::9"
            assert refusal(lambda address=address: kernel.route(address)) == name
            entry = kernel.refusing_route(address, getattr(errno, name))
            assert entry is not None
            assert (entry.type, entry.prefix, entry.protocol) == (kind, f"2001:db8:{number}::/48", 4)
        uplink = kernel.link("eth0").index
        for hop in ("fd00:172:30::c", "fd00:172:30::d"):
            nodes.at(
                "a",
                lambda ip, hop=hop: ip.route("append", family=AF_INET6, dst="2001:db8:1::/48", gateway=hop, oif=uplink),
            )
        several = kernel.route("2001:db8:1::9")
        assert several.prefix == "2001:db8:1::/48" and several.next_hop in ("fd00:172:30::c", "fd00:172:30::d")
        assert (several.device, several.preferred_source) == (uplink, NODE6["a"])
        nodes.at("a", lambda ip: ip.route("del", family=AF_INET6, dst="::/0"))
        assert refusal(lambda: kernel.route("2001:db9::1")) == "ENETUNREACH"


@in_namespaces
def test_a_device_that_carries_no_ipv6_and_an_address_somebody_else_has() -> None:
    nodes = TwoNodes(dual=True)
    with Netlink() as kernel:
        nodes.sysctl("a", f"net/ipv6/conf/{TUNNEL6}/disable_ipv6", "1")
        assert not kernel.link(TUNNEL6).ipv6
        nodes.sysctl("a", f"net/ipv6/conf/{TUNNEL6}/disable_ipv6", "0")
        assert kernel.link(TUNNEL6).ipv6
        nodes.at("a", lambda ip: ip.link("set", index=kernel.link(TUNNEL6).index, mtu=1279))
        assert not kernel.link(TUNNEL6).ipv6, "IPv6 needs 1280"

        uplink = kernel.link("eth0").index
        nodes.sysctl("a", "net/ipv6/conf/eth0/accept_dad", "1")
        nodes.at("a", lambda ip: ip.addr("add", index=uplink, address=NODE6["b"], prefixlen=64))
        until = time.monotonic() + 10
        while time.monotonic() < until and not any(one.duplicate for one in kernel.addresses(uplink, AF_INET6)):
            time.sleep(0.01)
        refused = [one.address for one in kernel.addresses(uplink, AF_INET6) if one.duplicate]
        assert refused == [NODE6["b"]]


@in_namespaces
def test_listening_sockets_are_the_printed_ones() -> None:
    nodes = TwoNodes()
    echo(nodes.db, 8080)
    echo(nodes.db, 9090, "127.0.0.1")

    def dual() -> list[socket.socket]:
        found = []
        for address, port in (("::", 7070), ("::ffff:10.244.2.2", 6060), ("::1", 6061), ("::", 7071)):
            one = socket.socket(AF_INET6)
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, port == 7071)
            one.bind((address, port))
            one.listen()
            found.append(one)
        connected = socket.create_connection(("127.0.0.1", 9090))
        return [*found, connected]

    kept = nodes.db.run(dual)
    expected = {
        ("tcp", 8080): [Bound("0.0.0.0", (4,))],
        ("udp", 8080): [Bound("0.0.0.0", (4,))],
        ("tcp", 9090): [Bound("127.0.0.1", (4,))],
        ("tcp", 7070): [Bound("::", (4, 6))],
        ("tcp", 6060): [Bound("10.244.2.2", (4,))],
        ("tcp", 6061): [Bound("::1", (6,))],
        ("udp", 7070): [],
        ("tcp", kept[-1].getsockname()[1]): [],
    }
    for (protocol, port), sockets in expected.items():
        told = nodes.db.run(lambda p=protocol, n=port: listening(p, n))
        assert [(one.waiting, one.backlog) for one in told] == [
            (0, 128) if protocol == "tcp" else (-1, -1) for _ in sockets
        ]
        assert [Bound(one.address, one.families) for one in told] == sockets, (protocol, port)
        assert nodes.db.run(lambda p=protocol, n=port: printed(p, n)) == sockets, (protocol, port)
    only = nodes.db.run(lambda: listening("tcp", 7071))
    assert [(one.address, one.families) for one in only] == [("::", (6,))], "a socket for IPv6 only"
    assert listening("tcp", 8080) == [], "the node itself listens nowhere"
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
