"""Every field of every fact a probe sends about a node, on a healthy kernel and on wounded ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from aiohttp import web

from facts import (
    Blind,
    Fact,
    FdbEntry,
    FelixHealth,
    Link,
    LinkAddresses,
    Listener,
    LocalPod,
    Neighbor,
    NeighborTable,
    NodeAsk,
    PeerGateway,
    PodInterface,
    PodRoute,
    RouteLookup,
    Sysctl,
    Way,
)
from node_probe import collectors, namespaces
from node_probe.answer import Prober
from node_probe.collectors import discover, felix
from node_probe.namespaces import inside
from node_probe.view import View
from tests.namespaces import Place, in_namespaces
from tests.two_nodes import (
    BLOCK,
    CART,
    CART_INTERFACE,
    DB,
    DB_INTERFACE,
    MAC,
    NODE,
    STRANGER,
    TUNNEL,
    TwoNodes,
    ask,
    echo,
    from_cart,
)
from tests.xdp import attach, dropping

F = TypeVar("F", bound=Fact)
GATEWAY, UNDERLAY = "169.254.1.1", "172.30.0.1"
TABLE = """\
+---------------------------+---------+----------------+---------------------+--------+
|         COMPONENT         | TIMEOUT |    LIVENESS    |      READINESS      | DETAIL |
+---------------------------+---------+----------------+---------------------+--------+
| CalculationGraph          | 30s     | reporting live | reporting ready     |        |
| InternalDataplaneMainLoop | 1m30s   | reporting live | {main_loop:19} |        |
+---------------------------+---------+----------------+---------------------+--------+
"""


def look(question: NodeAsk | None = None, **changes: Any) -> list[Fact]:
    """What a prober that is made in this process's namespace answers."""

    async def answer() -> list[Fact]:
        prober = Prober("node-a")
        try:
            return await prober.answer(question or ask(**changes), time.monotonic() + 10)
        finally:
            await prober.close()

    return asyncio.run(answer())


def of(facts: list[Fact], kind: type[F], **fields: Any) -> list[F]:
    return [
        fact
        for fact in facts
        if isinstance(fact, kind) and all(getattr(fact, name) == value for name, value in fields.items())
    ]


def only(facts: list[Fact], kind: type[F], **fields: Any) -> F:
    found = of(facts, kind, **fields)
    assert len(found) == 1, f"{len(found)} {kind.__name__} with {fields} in {facts}"
    return found[0]


def test_the_collectors_are_the_files() -> None:
    files = {file.stem for file in Path(collectors.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(discover()) == files and {"listener", "route"} < files


@in_namespaces
def test_a_healthy_node_in_full() -> None:
    nodes = TwoNodes()
    echo(nodes.cart, 8080)
    look()  # whom the kernel has never met is asked once
    facts = look()
    gateway_state = only(facts, PodInterface).pod_gateway_state
    assert gateway_state in ("REACHABLE", "STALE", "DELAY", "PROBE")
    uplink_mac = nodes.at("a", lambda ip: ip.get_links(nodes.index("a", "eth0"))[0].get_attr("IFLA_ADDRESS"))
    pod_mac = nodes.at("cart", lambda ip: ip.get_links(nodes.index("cart", "eth0"))[0].get_attr("IFLA_ADDRESS"))
    peer_mac = nodes.at("b", lambda ip: ip.get_links(nodes.index("b", "eth0"))[0].get_attr("IFLA_ADDRESS"))
    expected = [
        Link(
            node="node-a", device=TUNNEL, found=True, up=True, lower_up=True, operstate="UNKNOWN", mac=MAC["a"],
            mtu=1450, link_kind="vxlan", vni=4096, vxlan_port=4789, vxlan_local=NODE["a"], parent="eth0", sums="card",
        ),
        Link(
            node="node-a", device="eth0", found=True, up=True, lower_up=True, operstate="UP", mac=uplink_mac,
            mtu=1500, link_kind="veth", sums="card", node_address=NODE["a"],
        ),
        LinkAddresses(node="node-a", device=TUNNEL, found=True, addresses=(f"{BLOCK['a']}/32",)),
        LinkAddresses(node="node-a", device="eth0", found=True, addresses=(f"{NODE['a']}/24",)),
        RouteLookup(
            node="node-a", destination=DB, found=True, type="unicast", prefix=f"{BLOCK['b']}/26", next_hop=BLOCK["b"],
            device=TUNNEL, table=254, protocol=80, scope=0, metric=0, onlink=True, preferred_source=BLOCK["a"],
        ),
        RouteLookup(
            node="node-a", destination=DB, source=CART, incoming=CART_INTERFACE, found=True, type="unicast",
            prefix=f"{BLOCK['b']}/26", next_hop=BLOCK["b"], device=TUNNEL, table=254, protocol=80, scope=0, metric=0,
            onlink=True, rp_filter=0,
        ),
        RouteLookup(
            node="node-a", destination=CART, found=True, type="unicast", prefix=f"{CART}/32", device=CART_INTERFACE,
            table=254, protocol=80, scope=253, metric=1024, preferred_source=NODE["a"],
        ),
        RouteLookup(
            node="node-a", destination=CART, source=DB, incoming=TUNNEL, found=True, type="unicast",
            prefix=f"{CART}/32", device=CART_INTERFACE, table=254, protocol=80, scope=253, metric=1024, rp_filter=0,
        ),
        RouteLookup(
            node="node-a", destination=GATEWAY, found=True, type="unicast", prefix="0.0.0.0/0", next_hop=UNDERLAY,
            device="eth0", table=254, protocol=4, scope=0, metric=0, preferred_source=NODE["a"],
        ),
        RouteLookup(
            node="node-a", destination=GATEWAY, source=CART, incoming=CART_INTERFACE, found=True, type="unicast",
            prefix="0.0.0.0/0", next_hop=UNDERLAY, device="eth0", table=254, protocol=4, scope=0, metric=0, rp_filter=0,
        ),
        Neighbor(node="node-a", device="eth0", address=NODE["b"], found=True, mac=peer_mac, state="REACHABLE"),
        Neighbor(node="node-a", device=CART_INTERFACE, address=CART, found=True, mac=pod_mac, state="REACHABLE"),
        Neighbor(node="node-a", device=TUNNEL, address=BLOCK["b"], found=True, mac=MAC["b"], state="PERMANENT"),
        FdbEntry(node="node-a", device=TUNNEL, mac=MAC["b"], found=True, peer=NODE["b"]),
        PodInterface(
            node="node-a", pod="shop/cart", interface=CART_INTERFACE, found=True, up=True, lower_up=True,
            mac="ee:ee:ee:ee:ee:ee", mtu=1450, entered=True, pod_device="eth0", pod_up=True, pod_mac=pod_mac,
            pod_mtu=1450, pod_addresses=(f"{CART}/32",), pod_default_next_hop=GATEWAY,
            pod_gateway_mac="ee:ee:ee:ee:ee:ee", pod_gateway_state=gateway_state,
        ),
        Listener(
            node="node-a", pod="shop/cart", protocol="tcp", port=8080, found=True, addresses=("0.0.0.0",), waiting=0,
            backlog=128,
        ),
        FelixHealth(node="node-a", reachable=False, detail="nothing listens on 127.0.0.1:9099"),
        Sysctl(node="node-a", name="net.ipv4.ip_forward", found=True, value="1"),
        *(
            Sysctl(
                node="node-a", name=f"net.ipv4.conf.{device}.{switch}", found=True, value=value, device=device,
                switch=switch,
            )
            for device, switch, value in (
                ("all", "rp_filter", "0"), ("all", "proxy_arp", "0"), (TUNNEL, "forwarding", "1"),
                (TUNNEL, "rp_filter", "0"), (CART_INTERFACE, "forwarding", "1"), (CART_INTERFACE, "rp_filter", "0"),
                (CART_INTERFACE, "proxy_arp", "1"),
            )
        ),
    ]  # fmt: skip
    kinds = tuple({type(fact) for fact in expected})
    assert sorted((fact for fact in facts if isinstance(fact, kinds)), key=repr) == sorted(expected, key=repr)


@in_namespaces
def test_reading_changes_nothing() -> None:
    nodes = TwoNodes()

    def state() -> list[str]:
        def read(ip: Any) -> list[str]:
            entries = [one for one in ip.get_neighbours() if one["ifindex"] != 1]  # lo: of the question to Felix
            neighbors = [(one["ifindex"], one["state"], one.get("NDA_DST"), one.get("NDA_LLADDR")) for one in entries]
            return [str(one["attrs"]) for one in ip.get_routes()] + [str(one) for one in neighbors]

        return list(nodes.at("a", read))

    look()  # of an address that the kernel has never met, it is asked once, as a packet for it would
    before = state()
    look()
    assert state() == before


@in_namespaces
def test_a_missing_tunnel_is_a_finding_in_every_fact_about_it() -> None:
    nodes = TwoNodes()
    nodes.at("a", lambda ip: ip.link("del", index=nodes.index("a", TUNNEL)))
    facts = look()
    assert only(facts, Link, device=TUNNEL) == Link(node="node-a", device=TUNNEL, found=False)
    assert only(facts, LinkAddresses, device=TUNNEL) == LinkAddresses(node="node-a", device=TUNNEL, found=False)
    assert only(facts, Neighbor, device=TUNNEL) == Neighbor(
        node="node-a", device=TUNNEL, address=BLOCK["b"], found=False
    )
    assert only(facts, FdbEntry) == FdbEntry(node="node-a", device=TUNNEL, mac=MAC["b"], found=False)
    assert only(facts, RouteLookup, destination=DB, incoming="").prefix == "0.0.0.0/0"
    assert only(facts, RouteLookup, destination=CART, incoming=TUNNEL).error == "ENODEV"
    assert not only(facts, Sysctl, name=f"net.ipv4.conf.{TUNNEL}.forwarding").found
    assert not of(facts, Blind)


@in_namespaces
def test_the_kernels_own_way_is_followed_beside_the_expected_one() -> None:
    nodes = TwoNodes()
    tunnel = nodes.index("a", TUNNEL)

    def divert(ip: Any) -> None:
        ip.neigh("replace", dst="10.244.3.0", lladdr="66:00:00:00:00:0c", ifindex=tunnel, state=128)
        ip.fdb("append", ifindex=tunnel, lladdr="66:00:00:00:00:0c", dst="172.30.0.13", state=128)
        ip.route("add", dst=f"{DB}/32", gateway="10.244.3.0", oif=tunnel, flags=4)

    nodes.at("a", divert)
    facts = look()
    assert only(facts, RouteLookup, destination=DB, incoming="").next_hop == "10.244.3.0"
    assert {one.address: one.mac for one in of(facts, Neighbor, device=TUNNEL)} == {
        "10.244.3.0": "66:00:00:00:00:0c",
        BLOCK["b"]: MAC["b"],
    }
    assert {one.mac: one.peer for one in of(facts, FdbEntry)} == {
        "66:00:00:00:00:0c": "172.30.0.13",
        MAC["b"]: NODE["b"],
    }


@in_namespaces
def test_wrong_mac_shows_both_forwarding_entries() -> None:
    nodes = TwoNodes()
    tunnel = nodes.index("a", TUNNEL)
    wrong = "66:00:00:00:00:99"
    nodes.at("a", lambda ip: ip.neigh("replace", dst=BLOCK["b"], lladdr=wrong, ifindex=tunnel, state=128))
    facts = look()
    assert only(facts, Neighbor, device=TUNNEL).mac == wrong
    assert {one.mac: one.found for one in of(facts, FdbEntry)} == {wrong: False, MAC["b"]: True}


@in_namespaces
def test_missing_neighbor_and_forwarding_entry_are_facts() -> None:
    nodes = TwoNodes()
    tunnel = nodes.index("a", TUNNEL)
    nodes.at("a", lambda ip: ip.neigh("del", dst=BLOCK["b"], ifindex=tunnel))
    nodes.at("a", lambda ip: ip.fdb("del", ifindex=tunnel, lladdr=MAC["b"]))
    facts = look()
    assert only(facts, Neighbor, device=TUNNEL) == Neighbor(
        node="node-a", device=TUNNEL, address=BLOCK["b"], found=False
    )
    assert only(facts, FdbEntry) == FdbEntry(node="node-a", device=TUNNEL, mac=MAC["b"], found=False)


@in_namespaces
def test_what_the_default_entry_carries_is_not_called_missing() -> None:
    nodes = TwoNodes()
    tunnel = nodes.index("a", TUNNEL)
    nodes.at("a", lambda ip: ip.fdb("del", ifindex=tunnel, lladdr=MAC["b"]))
    nodes.at("a", lambda ip: ip.fdb("append", ifindex=tunnel, lladdr="00:00:00:00:00:00", dst=NODE["b"], state=128))
    facts = look()
    assert not of(facts, FdbEntry)
    assert [(one.node, one.look) for one in of(facts, Blind)] == [("node-a", "fdb")]
    assert "all-zero entry" in of(facts, Blind)[0].reason


@in_namespaces
def test_blackhole_no_route_and_unreachable_are_different() -> None:
    nodes = TwoNodes()
    nodes.at("a", lambda ip: ip.route("add", dst=f"{DB}/32", type="blackhole", proto=4))
    nodes.at("a", lambda ip: ip.route("add", dst=f"{STRANGER}/32", type="unreachable"))
    ways = (Way(destination=DB, source=CART, incoming=CART_INTERFACE), Way(destination=STRANGER))
    facts = look(ways=ways)
    for incoming in ("", CART_INTERFACE):
        swallowed = only(facts, RouteLookup, destination=DB, incoming=incoming)
        assert (swallowed.found, swallowed.error, swallowed.type) == (False, "EINVAL", "blackhole")
        assert (swallowed.prefix, swallowed.protocol, swallowed.table) == (f"{DB}/32", 4, 254)
    unreachable = only(facts, RouteLookup, destination=STRANGER)
    assert (unreachable.error, unreachable.type) == ("EHOSTUNREACH", "unreachable")
    assert not of(facts, Neighbor, address=DB)

    nodes.at("a", lambda ip: ip.route("del", dst="0.0.0.0/0"))
    none = only(look(ways=(Way(destination="8.8.8.8"),), local_pods=()), RouteLookup)
    assert (none.found, none.error, none.type, none.prefix, none.table) == (False, "ENETUNREACH", "", "", -1)


@in_namespaces
def test_a_pods_missing_route_ends_in_the_blackhole_of_its_block() -> None:
    nodes = TwoNodes()
    nodes.at("a", lambda ip: ip.route("del", dst=f"{CART}/32", oif=nodes.index("a", CART_INTERFACE), scope=253))
    lookup = only(look(), RouteLookup, destination=CART, incoming="")
    assert (lookup.error, lookup.type, lookup.prefix) == ("EINVAL", "blackhole", f"{BLOCK['a']}/26")


@in_namespaces
def test_rp_filter_is_not_taken_for_the_blackhole_beneath_the_pod() -> None:
    nodes = TwoNodes()
    for device in ("all", TUNNEL):
        nodes.sysctl("a", f"net/ipv4/conf/{device}/rp_filter", "1")
    nodes.at("a", lambda ip: ip.route("del", dst=f"{BLOCK['b']}/26"))  # so the way back is by eth0, not by the tunnel
    facts = look()
    refused = only(facts, RouteLookup, destination=CART, incoming=TUNNEL)
    assert (refused.found, refused.type, refused.prefix) == (False, "", "")
    assert refused.error in ("EINVAL", "EXDEV")
    assert refused.rp_filter == 1
    assert only(facts, RouteLookup, destination=CART, incoming="").found
    assert only(facts, Sysctl, name=f"net.ipv4.conf.{TUNNEL}.rp_filter").value == "1"


@in_namespaces
def test_a_rule_that_leads_the_flow_into_a_blackhole_is_told_from_rp_filter() -> None:
    nodes = TwoNodes()
    nodes.at("a", lambda ip: ip.rule("add", priority=100, table=100, src=CART, src_len=32))
    nodes.at("a", lambda ip: ip.route("add", dst="10.0.0.0/8", type="blackhole", table=100))
    facts = look()
    assert only(facts, RouteLookup, destination=DB, incoming="").device == TUNNEL
    swallowed = only(facts, RouteLookup, destination=DB, incoming=CART_INTERFACE)
    assert (swallowed.type, swallowed.prefix, swallowed.table) == ("blackhole", "10.0.0.0/8", 100)


@in_namespaces
def test_a_flow_based_device_has_no_vni_of_its_own() -> None:
    nodes = TwoNodes()

    def remake(ip: Any) -> None:
        ip.link("del", index=nodes.index("a", TUNNEL))
        ip.link("add", ifname=TUNNEL, kind="vxlan", vxlan_collect_metadata=True, vxlan_port=4789)

    nodes.at("a", remake)
    assert (only(look(), Link, device=TUNNEL).vni, only(look(), Link, device=TUNNEL).vxlan_port) == (-1, 4789)


@in_namespaces
def test_an_old_failure_of_the_peers_address_is_asked_again() -> None:
    """FAILED stays in the table for hours; only a kernel that still finds nobody has something to say."""
    nodes = TwoNodes()
    uplink = nodes.index("a", "eth0")
    nodes.at("a", lambda ip: ip.neigh("add", dst=NODE["b"], ifindex=uplink, state=32))
    found = only(look(), Neighbor, device="eth0")
    assert (found.state, found.found) == ("REACHABLE", True)

    nodes.at("a", lambda ip: ip.neigh("replace", dst="172.30.0.77", ifindex=uplink, state=32))
    nobody = (Way(destination=DB, expected_next_hop=BLOCK["b"], expected_peer="172.30.0.77"),)
    assert only(look(ways=nobody), Neighbor, address="172.30.0.77").state == "INCOMPLETE"


@in_namespaces
def test_a_router_on_the_way_to_a_peer() -> None:
    nodes = TwoNodes()
    uplink = nodes.index("a", "eth0")
    beyond = (Way(destination=DB, expected_next_hop=BLOCK["b"], expected_peer="192.0.2.9"),)
    nodes.at("a", lambda ip: ip.route("add", dst="192.0.2.9/32", gateway=NODE["b"], oif=uplink))
    assert of(look(), PeerGateway) == [], "a peer in the same subnet needs none"
    found = only(look(ways=beyond), PeerGateway)
    assert (found.peer, found.address, found.device, found.state) == ("192.0.2.9", NODE["b"], "eth0", "REACHABLE")

    nodes.at("a", lambda ip: ip.route("replace", dst="192.0.2.9/32", gateway="172.30.0.77", oif=uplink))
    found = only(look(ways=beyond), PeerGateway)
    assert (found.address, found.mac, found.state) == ("172.30.0.77", "", "INCOMPLETE")

    nodes.at("a", lambda ip: ip.route("add", dst=f"{NODE['b']}/32", oif=nodes.index("a", CART_INTERFACE), scope=253))
    found = only(look(), PeerGateway)
    assert (found.peer, found.address, found.device) == (NODE["b"], NODE["b"], CART_INTERFACE)


@in_namespaces
def test_a_node_that_does_not_forward() -> None:
    nodes = TwoNodes()
    nodes.sysctl("a", "net/ipv4/ip_forward", "0")
    facts = look()
    assert only(facts, Sysctl, name="net.ipv4.ip_forward").value == "0"
    assert only(facts, RouteLookup, destination=DB, incoming="").found
    assert only(facts, RouteLookup, destination=DB, incoming=CART_INTERFACE).error == "EHOSTUNREACH"

    nodes.sysctl("a", "net/ipv4/ip_forward", "1")
    nodes.sysctl("a", "net/ipv4/conf/eth0/forwarding", "0")
    switch = only(look(), Sysctl, name="net.ipv4.ip_forward")
    assert (switch.value, switch.unlike) == ("1", ("eth0",))


@in_namespaces
def test_an_address_no_device_holds_leaves_the_uplink_unknown() -> None:
    TwoNodes()
    facts = look(uplink_address="172.30.0.99")
    assert [one.look for one in of(facts, Blind)] == ["link"]
    assert "172.30.0.99" in only(facts, Blind).reason
    assert [one.device for one in of(facts, LinkAddresses)] == [TUNNEL]


@pytest.mark.parametrize("uplink", ["eth0", "bridge", "macvlan"])
def test_a_program_of_a_card_is_told_of_whatever_stands_on_it(uplink: str) -> None:
    """It drops before the probe looks; by the bridge alone nobody would know of it."""
    program = dropping(0)

    def on_nodes() -> None:
        nodes = TwoNodes()
        assert {one.programs for one in of(look(), Link)} == {()}
        if uplink != "eth0":
            nodes.at("a", lambda ip: on_top(ip, nodes.index("a", "eth0"), uplink))
        attach("eth0", program)
        attach(CART_INTERFACE, program)
        facts = look()
        assert only(facts, Link, node_address=NODE["a"]).device == ("eth0" if uplink == "eth0" else "br-ex")
        assert only(facts, Link, node_address=NODE["a"]).programs == ("eth0",)
        assert only(facts, Link, device=TUNNEL).programs == ()
        assert only(facts, PodInterface).program
        attach("eth0", -1)
        assert only(look(), Link, node_address=NODE["a"]).programs == ()

    try:
        in_namespaces(on_nodes)()
    finally:
        os.close(program)


def on_top(ip: Any, card: int, kind: str) -> None:
    """The node address moves to a device on top of the card."""
    below = {"link": card} if kind == "macvlan" else {}
    ip.link("add", ifname="br-ex", kind=kind, state="up", **below)
    index = ip.link_lookup(ifname="br-ex")[0]
    if kind == "bridge":
        ip.link("set", index=card, master=index)
    ip.addr("del", index=card, address=NODE["a"], prefixlen=24)
    ip.addr("add", index=index, address=NODE["a"], prefixlen=24)


@in_namespaces
def test_where_no_tunnel_is_asked_for_none_is_looked_at() -> None:
    TwoNodes()
    facts = look(tunnel_device="", ways=(Way(destination=DB, source=CART, incoming=CART_INTERFACE),))
    assert not of(facts, Blind) and not of(facts, FdbEntry)
    assert [one.device for one in of(facts, Link)] == ["eth0"]
    assert {one.device for one in of(facts, Sysctl)} == {"", "all", CART_INTERFACE}


@in_namespaces
def test_both_ends_of_a_wounded_pod() -> None:
    nodes = TwoNodes()
    pod = nodes.index("cart", "eth0")

    def wound(ip: Any) -> None:
        ip.neigh("replace", dst="169.254.1.1", lladdr="02:de:ad:00:00:01", ifindex=pod, state=128)
        ip.addr("add", index=pod, address="10.244.1.77", prefixlen=32)

    nodes.at("cart", wound)
    seen = only(look(), PodInterface)
    assert (seen.pod_gateway_mac, seen.pod_gateway_state) == ("02:de:ad:00:00:01", "PERMANENT")
    assert seen.pod_addresses == (f"{CART}/32", "10.244.1.77/32")

    nodes.at("cart", lambda ip: ip.link("set", index=pod, state="down"))
    seen = only(look(), PodInterface)
    assert (seen.found, seen.up, seen.lower_up, seen.entered, seen.pod_up) == (True, True, False, True, False)
    assert seen.pod_default_next_hop == "", "the kernel flushed it with the interface"

    nodes.at("a", lambda ip: ip.link("set", index=nodes.index("a", CART_INTERFACE), state="down"))
    assert (only(look(), PodInterface).found, only(look(), PodInterface).up) == (True, False)


@in_namespaces
def test_a_pods_own_way_to_what_it_sends_to() -> None:
    nodes = TwoNodes()
    send = (from_cart("icmp"), from_cart("tcp", port=8080), from_cart("icmp", STRANGER))
    eth0 = {"next_hop": GATEWAY, "device": "eth0"}
    route = PodRoute(
        node="node-a", pod="shop/cart", destination=DB, found=True, prefix="0.0.0.0/0", source=CART, **eth0
    )
    to_stranger = msgspec.structs.replace(route, destination=STRANGER)
    assert of(look(send=send), PodRoute) == [route, to_stranger]

    nodes.at("cart", lambda ip: ip.route("add", dst=f"{STRANGER}/32", type="blackhole"))
    nodes.at("cart", lambda ip: ip.route("del", dst="0.0.0.0/0"))
    lost, swallowed = of(look(send=send), PodRoute)
    assert (lost.found, lost.error, lost.destination) == (False, "ENETUNREACH", DB)
    assert (swallowed.found, swallowed.error, swallowed.destination) == (False, "EINVAL", STRANGER)


@in_namespaces
def test_the_nodes_own_way_to_a_pods_gateway() -> None:
    """Without one it does not answer for it (proxy ARP)."""
    nodes = TwoNodes()
    nodes.at("a", lambda ip: ip.route("del", dst="0.0.0.0/0"))
    seen = of(look(), RouteLookup, destination=GATEWAY)
    assert [(one.incoming, one.found, one.error) for one in seen] == [
        ("", False, "ENETUNREACH"), (CART_INTERFACE, False, "ENETUNREACH")
    ]  # fmt: skip


@in_namespaces
def test_a_missing_interface_is_a_finding_and_the_inside_is_unknown() -> None:
    nodes = TwoNodes()
    nodes.at("a", lambda ip: ip.link("del", index=nodes.index("a", CART_INTERFACE)))
    facts = look()
    assert only(facts, PodInterface) == PodInterface(
        node="node-a", pod="shop/cart", interface=CART_INTERFACE, found=False
    )
    assert only(facts, Blind).look == "pod"
    assert not of(facts, Listener)


@in_namespaces
def test_a_namespace_that_cannot_be_found_is_blind_with_the_reason() -> None:
    TwoNodes()
    namespaces.DIRECTORIES = ("/run/nowhere",)
    facts = look()
    seen = only(facts, PodInterface)
    assert (seen.found, seen.up, seen.mtu, seen.entered, seen.pod_device) == (True, True, 1450, False, "")
    blind = only(facts, Blind)
    assert blind.look == "pod" and blind.reason.startswith("shop/cart: ") and "SYS_ADMIN" in blind.reason
    assert not of(facts, Listener), "not looking is never not listening"


@in_namespaces
def test_a_device_that_leads_into_no_pod_is_not_entered() -> None:
    nodes = TwoNodes()
    nodes.at("a", lambda ip: ip.link("add", ifname="cali1", kind="veth", peer={"ifname": "cali2"}))
    facts = look(local_pods=(LocalPod(name="shop/odd", address=CART, interface="cali1"),))
    assert "no other namespace" in only(facts, Blind).reason
    assert not only(facts, PodInterface).entered


@in_namespaces
def test_the_right_one_of_many_namespaces_is_entered_by_descriptor_or_process() -> None:
    nodes = TwoNodes()
    for number in range(20):
        Place(f"cni-other-{number}")
    process = nodes.cart.run(lambda: subprocess.Popen(["sleep", "60"]))
    try:
        assert only(look(), PodInterface).pod_addresses == (f"{CART}/32",)
        namespaces.DIRECTORIES = ()
        assert only(look(), PodInterface).pod_addresses == (f"{CART}/32",), "found by the pod's process"
    finally:
        process.kill()
        process.wait()


@in_namespaces
def test_no_thread_stays_in_a_pod() -> None:
    nodes = TwoNodes()
    here = os.stat("/proc/thread-self/ns/net").st_ino  # noqa: PTH116
    there = inside(nodes.cart.descriptor, lambda: os.stat("/proc/thread-self/ns/net").st_ino)  # noqa: PTH116
    assert here != there
    before = threading.active_count()
    with contextlib.suppress(ZeroDivisionError):
        inside(nodes.cart.descriptor, lambda: 1 // 0)
    look()
    assert threading.active_count() == before
    assert os.stat("/proc/thread-self/ns/net").st_ino == here  # noqa: PTH116


@in_namespaces
def test_listeners_of_both_protocols_and_none() -> None:
    nodes = TwoNodes()
    echo(nodes.cart, 8080, "127.0.0.1")
    for protocol, port, addresses, queue in (
        ("tcp", 8080, ("127.0.0.1",), (0, 128)),
        ("udp", 8080, ("127.0.0.1",), (-1, -1)),
        ("tcp", 81, (), (-1, -1)),
    ):
        pod = LocalPod(name="shop/cart", address=CART, interface=CART_INTERFACE, protocol=protocol, port=port)
        assert only(look(local_pods=(pod,)), Listener) == Listener(
            node="node-a",
            pod="shop/cart",
            protocol=protocol,
            port=port,
            found=bool(addresses),
            addresses=addresses,
            waiting=queue[0],
            backlog=queue[1],
        )


@in_namespaces
async def test_felix_ready_unready_slow_and_odd() -> None:
    TwoNodes()
    bodies: dict[str, tuple[int, str]] = {}

    async def health(request: web.Request) -> web.Response:
        status, text = bodies[request.path]
        if status == 0:
            await asyncio.Event().wait()
        return web.Response(status=status, text=text)

    app = web.Application()
    app.router.add_get("/{what}", health)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 9099).start()
    good, bad = TABLE.format(main_loop="reporting ready"), TABLE.format(main_loop="reporting non-ready")
    cases = (
        ((200, good), (200, good), FelixHealth(node="node-a", reachable=True, live=True, ready=True)),
        (
            (200, bad),
            (503, bad),
            FelixHealth(
                node="node-a", reachable=True, live=True, detail="InternalDataplaneMainLoop: reporting non-ready"
            ),
        ),
        ((404, "?"), (404, "?"), FelixHealth(node="node-a", reachable=True, detail="HTTP 404")),
        (
            (200, good), (0, ""),
            FelixHealth(node="node-a", reachable=False, detail="no answer from 127.0.0.1:9099 within 0.7 s"),
        ),
    )  # fmt: skip
    prober = Prober("node-a")
    for liveness, readiness, expected in cases:
        bodies.update({"/liveness": liveness, "/readiness": readiness})
        assert only(await prober.answer(ask(), time.monotonic() + 10), FelixHealth) == expected
    # Asked again where the ask wants it, beyond the deadline; a Felix that has come back by then is well.
    bodies.update({"/liveness": (200, bad), "/readiness": (503, bad)})
    began = time.monotonic()
    doubted = only(await prober.answer(ask(felix_again=True), began + 0.5), FelixHealth)
    assert (doubted.ready, doubted.confirmed) == (False, True) and time.monotonic() - began >= felix.AGAIN_S
    answering = asyncio.create_task(prober.answer(ask(felix_again=True), time.monotonic() + 0.5))
    await asyncio.sleep(1)
    assert not answering.done()
    bodies.update({"/liveness": (200, good), "/readiness": (200, good)})
    back = only(await answering, FelixHealth)
    assert (back.ready, back.confirmed) == (True, False)
    await prober.close()
    await runner.cleanup()


@in_namespaces
def test_names_from_outside_do_not_lead_out_of_the_sysctls() -> None:
    TwoNodes()
    facts = look(tunnel_device="../../../kernel")
    blind = only(facts, Blind, look="sysctl")
    assert "does not name a network device" in blind.reason
    assert of(facts, RouteLookup), "the other looks were made"


# -- looks that break, hang or come late ---------------------------------------------------------------------------


def with_collectors(
    collectors: dict[str, Callable[..., Any]], seconds: float = 10.0, **changes: Any
) -> tuple[list[Fact], float]:
    async def answer() -> tuple[list[Fact], float]:
        prober = Prober("node-a", discover() | collectors)
        try:
            began = time.monotonic()
            facts = await prober.answer(ask(deadline_ms=int(seconds * 1000), **changes), began + seconds)
            return facts, time.monotonic() - began
        finally:
            release.set()
            await prober.close()

    release = threading.Event()
    for name, collector in list(collectors.items()):
        if collector is hanging:
            collectors[name] = lambda ask, view: iter([release.wait(20)][:0])
    return asyncio.run(answer())


def hanging(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """Replaced by one that hangs until the answer is there."""
    raise NotImplementedError


def of_the_ways(fact: Fact) -> bool:
    """Is it of the route collector? That of a pod's gateway comes with the pod."""
    return isinstance(fact, RouteLookup) and fact.destination != GATEWAY


def steady(facts: list[Fact]) -> list[Fact]:
    """Without what other programs of this machine change meanwhile: one neighbor table is for all namespaces."""
    return [fact for fact in facts if not isinstance(fact, NeighborTable)]


@in_namespaces
def test_a_broken_collector_costs_only_itself_and_keeps_what_it_saw() -> None:
    TwoNodes()
    first = Sysctl(node="node-a", name="seen", found=True)

    def breaking(ask: NodeAsk, view: View) -> Iterator[Fact]:
        yield first
        raise KeyError("surprise")

    async def breaking_too(ask: NodeAsk, view: View) -> AsyncIterator[Fact]:
        raise PermissionError(13, "Permission denied")
        yield first

    look()  # whom the kernel has never met is asked once
    whole = look()
    facts, _ = with_collectors({"route": breaking, "felix": breaking_too})
    assert first in facts
    assert "KeyError" in only(facts, Blind, look="route").reason
    assert "Permission denied" in only(facts, Blind, look="felix").reason
    assert {f for f in steady(facts) if not isinstance(f, Blind) and f != first} == {
        f for f in steady(whole) if not isinstance(f, FelixHealth) and not of_the_ways(f)
    }


@in_namespaces
def test_a_late_collector_is_blind_and_the_answer_is_not_late() -> None:
    TwoNodes()
    look()  # whom the kernel has never met is asked once
    whole = look()
    facts, took = with_collectors({"route": hanging}, seconds=0.6)
    assert took < 2
    assert only(facts, Blind) == Blind(node="node-a", look="route", reason="not done after 600 ms", late=True)
    assert {f for f in steady(facts) if not isinstance(f, Blind)} == {f for f in steady(whole) if not of_the_ways(f)}


@in_namespaces
def test_a_deadline_that_is_over_gives_blind_for_every_look() -> None:
    TwoNodes()
    facts, _ = with_collectors(dict.fromkeys(discover(), hanging), seconds=0.05)
    assert sorted(one.look for one in of(facts, Blind)) == sorted(discover())


@in_namespaces
async def test_two_hundred_asks_leave_no_descriptor_and_no_thread_behind() -> None:
    nodes = TwoNodes()
    echo(nodes.db, 8080)
    question = ask(send=(from_cart("icmp", count=1), from_cart("tcp", port=8080, count=1), from_cart("udp", port=8080)))
    prober = Prober("node-a")

    async def some(times: int) -> tuple[int, int]:
        for _ in range(times):
            facts = await prober.answer(question, time.monotonic() + 10)
            assert not of(facts, Blind)
        return len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208

    first, then = await some(40), await some(200)
    # Pools grow to their size and the echo may hold its last connection a moment longer; a leak would be two hundred.
    assert then[0] <= first[0] + 10 and then[1] <= first[1] + 10, (first, then)
    await prober.close()


@in_namespaces
def test_the_other_node_answers_for_itself() -> None:
    nodes = TwoNodes()
    question = ask(
        node="node-b",
        uplink_address=NODE["b"],
        ways=(Way(destination=CART, source=DB, incoming=DB_INTERFACE, expected_next_hop=BLOCK["a"]),),
        local_pods=(LocalPod(name="shop/db", address=DB, interface=DB_INTERFACE),),
    )
    # A prober belongs to the namespace it is made in, with all its threads.
    facts = nodes.b.run(lambda: look(question))
    assert only(facts, Link, device=TUNNEL).mac == MAC["b"]
    assert only(facts, PodInterface).pod_addresses == (f"{DB}/32",)
    assert only(facts, RouteLookup, destination=CART, incoming="").next_hop == BLOCK["a"]
