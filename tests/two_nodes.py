"""Two nodes on one cable, VXLAN between them, a pod on each, as Felix programs them: the smallest true subject."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from facts import LocalPod, NodeAsk, SendProbe, Way
from tests.namespaces import Place

TUNNEL = "vxlan.calico"
MAC = {"a": "66:00:00:00:00:0a", "b": "66:00:00:00:00:0b"}
NODE = {"a": "172.30.0.11", "b": "172.30.0.12"}
BLOCK = {"a": "10.244.1.0", "b": "10.244.2.0"}
CART, DB, STRANGER = "10.244.1.2", "10.244.2.2", "10.244.2.9"
TUNNEL6 = "vxlan-v6.calico"
MAC6 = {"a": "66:00:00:00:06:0a", "b": "66:00:00:00:06:0b"}
NODE6 = {"a": "fd00:172:30::b", "b": "fd00:172:30::c"}
BLOCK6 = {"a": "fd00:10:244::1:0", "b": "fd00:10:244::2:0"}
CART6, DB6, STRANGER6 = "fd00:10:244::1:2", "fd00:10:244::2:2", "fd00:10:244::2:9"
GATEWAY6 = "fe80::ecee:eeff:feee:eeee"  # what the kernel makes of the MAC every cali* has
CART_INTERFACE, DB_INTERFACE = "cali00000000ca7", "cali00000000db0"
PERMANENT, ONLINK, LINK_SCOPE, FELIX = 128, 4, 253, 80
TENTATIVE = 0x40  # linux/if_addr.h: nobody is answered under it yet

AF_INET6 = socket.AF_INET6

Work = Callable[[Any], Any]


class TwoNodes:
    """Node "a" is the namespace of the calling process, node "b" another. shop/cart lives on a, shop/db on b.

    dual: with IPv6 beside IPv4. Else IPv6 is off everywhere, and nothing of it is in anybody's way.
    """

    def __init__(self, *, dual: bool = False) -> None:
        self.dual = dual
        self.b = Place("node-b")
        self.cart, self.db = Place("cni-cart"), Place("cni-db")
        for place in ("a", "b", "cart", "db"):
            self.sysctl(place, "net/ipv6/conf/default/disable_ipv6", "0" if dual else "1")
            for name in ("all", "default"):
                self.sysctl(place, f"net/ipv6/conf/{name}/accept_dad", "0")  # no second of doubt about each address
        self.at("a", lambda ip: ip.link("set", index=1, state="up"))
        peer = {"ifname": "eth0", "net_ns_fd": self.b.descriptor}
        self.at("a", lambda ip: ip.link("add", ifname="eth0", kind="veth", peer=peer))
        for node, other in (("a", "b"), ("b", "a")):
            self.at(node, lambda ip, node=node, other=other: _node(ip, node, other))
            if dual:
                self.at(node, lambda ip, node=node, other=other: _node6(ip, node, other))
        self._pod("a", self.cart, CART, CART6, CART_INTERFACE)
        self._pod("b", self.db, DB, DB6, DB_INTERFACE)
        self._settle()

    def at(self, place: str, work: Work) -> Any:
        """`work(ip)` with a pyroute2 socket on node "a", node "b", pod "cart" or "db"."""
        where = {"b": self.b, "cart": self.cart, "db": self.db}.get(place)

        def connected() -> Any:
            with IPRoute() as ip:
                return work(ip)

        # pyroute2's sockets run an event loop: in a thread of their own they bother nobody else's.
        return where.run(connected) if where else _in_thread(connected)

    def index(self, place: str, device: str) -> int:
        return int(self.at(place, lambda ip: ip.link_lookup(ifname=device)[0]))

    def sysctl(self, place: str, name: str, value: str) -> None:
        """name: path below /proc/sys/."""
        if place == "a":
            _write(name, value)
        else:
            {"b": self.b, "cart": self.cart, "db": self.db}[place].run(lambda: _write(name, value))

    def _settle(self) -> None:
        """Devices drop what they are to send, and have no IPv6, until the kernel has noticed that the cable is plugged
        in."""
        devices = [
            ("a", "eth0"),
            ("a", CART_INTERFACE),
            ("b", "eth0"),
            ("b", DB_INTERFACE),
            ("cart", "eth0"),
            ("db", "eth0"),
        ]
        until = time.monotonic() + 10
        for place, device in devices:
            while not self.at(place, lambda ip, device=device: _sends(ip, device, self.dual)):
                if time.monotonic() > until:
                    raise TimeoutError(f"{device} of {place} does not send")
                time.sleep(0.01)

    def _pod(self, node: str, place: Place, address: str, address6: str, interface: str) -> None:
        peer = {"ifname": "eth0", "net_ns_fd": place.descriptor}
        mtu = 1430 if self.dual else 1450

        def outside(ip: Any) -> None:
            # Pods' ends get other indexes than the hosts' ends, lest a mix-up of the two go unnoticed.
            ip.link("add", ifname=interface, kind="veth", address="ee:ee:ee:ee:ee:ee", peer=peer, mtu=mtu, state="up")
            index = ip.link_lookup(ifname=interface)[0]
            ip.route("add", dst=f"{address}/32", oif=index, scope=LINK_SCOPE, proto=FELIX, priority=1024)
            if self.dual:
                ip.route("add", family=AF_INET6, dst=f"{address6}/128", oif=index, proto=FELIX)

        def within(ip: Any) -> None:
            index = ip.link_lookup(ifname="eth0")[0]
            for one in (1, index):
                ip.link("set", index=one, state="up")
            ip.link("set", index=index, mtu=mtu)
            ip.addr("add", index=index, address=address, prefixlen=32)
            ip.route("add", dst="169.254.1.1/32", oif=index, scope=LINK_SCOPE)
            ip.route("add", dst="0.0.0.0/0", gateway="169.254.1.1", oif=index)
            if self.dual:
                ip.addr("add", index=index, address=address6, prefixlen=128)
                ip.route("add", family=AF_INET6, dst="::/0", gateway=GATEWAY6, oif=index)

        self.at(node, outside)
        for name in ("proxy_arp", "forwarding"):
            self.sysctl(node, f"net/ipv4/conf/{interface}/{name}", "1")
        self.sysctl(node, f"net/ipv4/neigh/{interface}/proxy_delay", "0")
        self.at("cart" if place is self.cart else "db", within)


def _node(ip: Any, node: str, other: str) -> None:
    _write("net/ipv4/ip_forward", "1")
    uplink = ip.link_lookup(ifname="eth0")[0]
    for one in (1, uplink):
        ip.link("set", index=one, state="up")
    ip.addr("add", index=uplink, address=NODE[node], prefixlen=24)
    ip.route("add", dst="0.0.0.0/0", gateway="172.30.0.1", oif=uplink)
    ip.link(
        "add", ifname=TUNNEL, kind="vxlan", address=MAC[node], mtu=1450, vxlan_id=4096, vxlan_port=4789,
        vxlan_learning=0, vxlan_local=NODE[node], vxlan_link=uplink, state="up",
    )  # fmt: skip
    tunnel = ip.link_lookup(ifname=TUNNEL)[0]
    ip.addr("add", index=tunnel, address=BLOCK[node], prefixlen=32)
    ip.route("add", dst=f"{BLOCK[node]}/26", type="blackhole", proto=FELIX)
    ip.neigh("replace", dst=BLOCK[other], lladdr=MAC[other], ifindex=tunnel, state=PERMANENT)
    ip.fdb("append", ifindex=tunnel, lladdr=MAC[other], dst=NODE[other], state=PERMANENT)
    ip.route("add", dst=f"{BLOCK[other]}/26", gateway=BLOCK[other], oif=tunnel, flags=ONLINK, proto=FELIX)


def _node6(ip: Any, node: str, other: str) -> None:
    _write("net/ipv6/conf/all/forwarding", "1")
    uplink = ip.link_lookup(ifname="eth0")[0]
    ip.addr("add", index=uplink, address=NODE6[node], prefixlen=64)
    ip.route("add", family=AF_INET6, dst="::/0", gateway="fd00:172:30::1", oif=uplink)
    ip.link(
        "add", ifname=TUNNEL6, kind="vxlan", address=MAC6[node], mtu=1430, vxlan_id=4096, vxlan_port=4789,
        vxlan_learning=0, vxlan_local6=NODE6[node], vxlan_link=uplink, state="up",
    )  # fmt: skip
    tunnel = ip.link_lookup(ifname=TUNNEL6)[0]
    ip.addr("add", index=tunnel, address=BLOCK6[node], prefixlen=128)
    ip.route("add", family=AF_INET6, dst=f"{BLOCK6[node]}/122", type="blackhole", proto=FELIX)
    ip.neigh("replace", family=AF_INET6, dst=BLOCK6[other], lladdr=MAC6[other], ifindex=tunnel, state=PERMANENT)
    ip.fdb("append", ifindex=tunnel, lladdr=MAC6[other], dst=NODE6[other], state=PERMANENT)
    gateway = {"gateway": BLOCK6[other], "oif": tunnel, "flags": ONLINK}
    ip.route("add", family=AF_INET6, dst=f"{BLOCK6[other]}/122", proto=FELIX, **gateway)


def _sends(ip: Any, device: str, dual: bool) -> bool:
    """Has the device a queue, and where IPv6 is on a link-local address, and no address here that is not used yet?"""
    (link,) = ip.link("get", ifname=device)
    index = link["index"]
    if link.get("IFLA_OPERSTATE") != "UP" or link.get("IFLA_QDISC") == "noop":
        return False
    held = ip.get_addr(family=AF_INET6)
    linked = any(one["index"] == index and one.get("IFA_ADDRESS").startswith("fe80:") for one in held)
    return not dual or (linked and not any(one.get("IFA_FLAGS") & TENTATIVE for one in held))


def _write(name: str, value: str) -> None:
    Path("/proc/sys", name).write_text(value)


def _in_thread(work: Callable[[], Any]) -> Any:
    met: list[Any] = []

    def run() -> None:
        try:
            met.append((True, work()))
        except BaseException as error:
            met.append((False, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    well, value = met[0]
    if not well:
        raise value
    return value


def ask(**changes: Any) -> NodeAsk:
    """What a bot asks node a's probe about shop/cart -> shop/db."""
    fields: dict[str, Any] = {
        "node": "node-a",
        "uplink_address": NODE["a"],
        "ways": (
            Way(
                destination=DB, source=CART, incoming=CART_INTERFACE,
                expected_next_hop=BLOCK["b"], expected_mac=MAC["b"], expected_peer=NODE["b"],
            ),
            Way(destination=CART, source=DB, incoming=TUNNEL),
        ),
        "local_pods": (LocalPod(name="shop/cart", address=CART, interface=CART_INTERFACE, protocol="tcp", port=8080),),
    }  # fmt: skip
    return NodeAsk(**(fields | changes))


def ask6(**changes: Any) -> NodeAsk:
    """The same over IPv6."""
    fields: dict[str, Any] = {
        "family": 6,
        "tunnel_device": TUNNEL6,
        "uplink_address": NODE6["a"],
        "ways": (
            Way(
                destination=DB6, source=CART6, incoming=CART_INTERFACE,
                expected_next_hop=BLOCK6["b"], expected_mac=MAC6["b"], expected_peer=NODE6["b"],
            ),
            Way(destination=CART6, source=DB6, incoming=TUNNEL6),
        ),
        "local_pods": (LocalPod(name="shop/cart", address=CART6, interface=CART_INTERFACE, protocol="tcp", port=8080),),
    }  # fmt: skip
    return ask(**(fields | changes))


def from_cart(protocol: str, target: str = DB, **changes: Any) -> SendProbe:
    return SendProbe(pod="shop/cart", target=target, protocol=protocol, **changes)


def echo(place: Place, port: int, address: str = "0.0.0.0") -> None:
    """TCP and UDP echo inside, until the test's process ends."""

    def bind(kind: int) -> socket.socket:
        one = socket.socket(AF_INET6 if ":" in address else socket.AF_INET, kind)
        one.bind((address, port))
        return one

    stream, datagram = place.run(lambda: bind(socket.SOCK_STREAM)), place.run(lambda: bind(socket.SOCK_DGRAM))
    stream.listen()

    def connections() -> None:
        while True:
            one, _ = stream.accept()
            with contextlib.suppress(OSError), one:
                while data := one.recv(4096):
                    one.sendall(data)

    def datagrams() -> None:
        while True:
            with contextlib.suppress(OSError):
                data, sender = datagram.recvfrom(65535)
                datagram.sendto(data, sender)

    for work in (connections, datagrams):
        threading.Thread(target=work, daemon=True).start()
