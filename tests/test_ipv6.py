"""What a probe says of IPv6, on healthy nodes and on wounded ones: a pod may be cut off in one family only."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from facts import (
    Blind,
    Fact,
    FdbEntry,
    Link,
    LinkAddresses,
    Listener,
    LocalPod,
    Neighbor,
    NodeAsk,
    OwnPort,
    PodInterface,
    PodRoute,
    RouteLookup,
    SendProbe,
    Sysctl,
    Way,
)
from tests.namespaces import in_namespaces
from tests.test_collectors import look, of, only
from tests.test_packets import met, result, send
from tests.two_nodes import (
    AF_INET6,
    BLOCK,
    BLOCK6,
    CART6,
    CART_INTERFACE,
    DB6,
    DB_INTERFACE,
    GATEWAY6,
    MAC6,
    NODE,
    NODE6,
    STRANGER6,
    TUNNEL6,
    TwoNodes,
    ask,
    ask6,
    echo,
    from_cart,
)

UNDERLAY6 = "fd00:172:30::1"
FAMILY = {"family": 6, "local_pods": ask6().local_pods}


def mac(nodes: TwoNodes, place: str, device: str) -> str:
    return str(nodes.at(place, lambda ip: ip.get_links(nodes.index(place, device))[0].get_attr("IFLA_ADDRESS")))


def link_local(nodes: TwoNodes, place: str, device: str) -> str:
    """What the kernel makes of the device's MAC."""
    one = [int(part, 16) for part in mac(nodes, place, device).split(":")]
    packed = b"\xfe\x80" + bytes(6) + bytes([one[0] ^ 2, *one[1:3], 0xFF, 0xFE, *one[3:]])
    return socket.inet_ntop(AF_INET6, packed)


def of_the_path(facts: list[Fact]) -> list[Fact]:
    """Without what is looked at for other questions, such as how Felix is."""
    kinds = (FdbEntry, Link, LinkAddresses, Listener, Neighbor, PodInterface, PodRoute, RouteLookup, Sysctl)
    return [fact for fact in facts if isinstance(fact, kinds)]


@in_namespaces
def test_a_healthy_dual_stack_node_in_full() -> None:
    nodes = TwoNodes(dual=True)
    echo(nodes.cart, 8080, "::")
    look(ask6())  # whom the kernel has never met is asked once
    facts = look(ask6())
    gateway_state = only(facts, PodInterface).pod_gateway_state
    assert gateway_state in ("REACHABLE", "STALE", "DELAY", "PROBE")
    expected = [
        Link(
            node="node-a", device=TUNNEL6, found=True, up=True, lower_up=True, operstate="UNKNOWN", mac=MAC6["a"],
            mtu=1430, link_kind="vxlan", vni=4096, vxlan_port=4789, vxlan_local=NODE6["a"], parent="eth0", sums="card",
        ),
        Link(
            node="node-a", device="eth0", found=True, up=True, lower_up=True, operstate="UP",
            mac=mac(nodes, "a", "eth0"), mtu=1500, link_kind="veth", sums="card", node_address=NODE6["a"],
        ),
        *(
            LinkAddresses(node="node-a", device=device, family=6, found=True, addresses=addresses)
            for device, addresses in (
                (TUNNEL6, (f"{BLOCK6['a']}/128", f"{link_local(nodes, 'a', TUNNEL6)}/64")),
                ("eth0", (f"{NODE6['a']}/64", f"{link_local(nodes, 'a', 'eth0')}/64")),
                (CART_INTERFACE, (f"{GATEWAY6}/64",)),
            )
        ),
        *(
            RouteLookup(
                node="node-a", destination=DB6, source=source, incoming=incoming, found=True, type="unicast",
                prefix=f"{BLOCK6['b']}/122", next_hop=BLOCK6["b"], device=TUNNEL6, table=254, protocol=80, scope=0,
                metric=1024, onlink=True, preferred_source=own,
            )
            for source, incoming, own in (("", "", BLOCK6["a"]), (CART6, CART_INTERFACE, ""))
        ),
        *(
            RouteLookup(
                node="node-a", destination=CART6, source=source, incoming=incoming, found=True, type="unicast",
                prefix=f"{CART6}/128", device=CART_INTERFACE, table=254, protocol=80, scope=0, metric=1024,
                preferred_source=own,
            )
            for source, incoming, own in (("", "", BLOCK6["a"]), (DB6, TUNNEL6, ""))
        ),
        Neighbor(
            node="node-a", device="eth0", address=NODE6["b"], found=True, mac=mac(nodes, "b", "eth0"),
            state="REACHABLE",
        ),
        Neighbor(node="node-a", device=TUNNEL6, address=BLOCK6["b"], found=True, mac=MAC6["b"], state="PERMANENT"),
        Neighbor(
            node="node-a", device=CART_INTERFACE, address=CART6, found=True, mac=mac(nodes, "cart", "eth0"),
            state="REACHABLE",
        ),
        FdbEntry(node="node-a", device=TUNNEL6, mac=MAC6["b"], found=True, peer=NODE6["b"]),
        PodInterface(
            node="node-a", pod="shop/cart", family=6, interface=CART_INTERFACE, found=True, up=True, lower_up=True,
            mac="ee:ee:ee:ee:ee:ee", mtu=1430, entered=True, pod_device="eth0", pod_up=True,
            pod_mac=mac(nodes, "cart", "eth0"), pod_mtu=1430, pod_ipv6=True,
            pod_addresses=(f"{CART6}/128", f"{link_local(nodes, 'cart', 'eth0')}/64"), pod_default_next_hop=GATEWAY6,
            pod_gateway_mac="ee:ee:ee:ee:ee:ee", pod_gateway_state=gateway_state,
        ),
        Listener(
            node="node-a", pod="shop/cart", family=6, protocol="tcp", port=8080, found=True, addresses=("::",),
            waiting=0, backlog=128,
        ),
        *(
            Sysctl(
                node="node-a", name=f"net.ipv6.conf.{device}.{switch}", found=True, value=value, device=device,
                family=6, switch=switch,
            )
            for device, switch, value in (
                ("all", "forwarding", "1"), (TUNNEL6, "disable_ipv6", "0"),
                ("eth0", "disable_ipv6", "0"), (CART_INTERFACE, "disable_ipv6", "0"),
            )
        ),
    ]  # fmt: skip
    seen = [one for one in of_the_path(facts) if "force_forwarding" not in getattr(one, "name", "")]
    assert sorted(seen, key=repr) == sorted(expected, key=repr)
    assert not of(facts, Blind)


@in_namespaces
def test_the_other_family_is_looked_at_beside_it_and_unchanged() -> None:
    TwoNodes(dual=True)
    facts = look(ask())
    assert only(facts, PodInterface).pod_addresses == ("10.244.1.2/32",)
    assert {one.family for one in of(facts, LinkAddresses)} == {4}
    assert only(facts, Neighbor, address=BLOCK["b"]).state == "PERMANENT"
    assert not [one for one in of(facts, Sysctl) if one.family == 6]


# -- one wound at a time, and the facts it leaves --------------------------------------------------------------------


def wound_neighbor(nodes: TwoNodes) -> None:
    tunnel = nodes.index("a", TUNNEL6)
    nodes.at("a", lambda ip: ip.neigh("del", family=AF_INET6, dst=BLOCK6["b"], ifindex=tunnel))


def wound_fdb(nodes: TwoNodes) -> None:
    tunnel = nodes.index("a", TUNNEL6)
    nodes.at("a", lambda ip: ip.fdb("del", ifindex=tunnel, lladdr=MAC6["b"], dst=NODE6["b"]))


def wound_route(nodes: TwoNodes) -> None:
    nodes.at("a", lambda ip: ip.route("del", family=AF_INET6, dst=f"{BLOCK6['b']}/122"))


def wound_link_local(nodes: TwoNodes) -> None:
    cali = nodes.index("a", CART_INTERFACE)
    nodes.at("a", lambda ip: ip.addr("del", index=cali, address=GATEWAY6, prefixlen=64))


@pytest.mark.parametrize(
    ("wound", "left", "packets"),
    [
        (
            wound_neighbor,
            [Neighbor(node="node-a", device=TUNNEL6, address=BLOCK6["b"], found=False)],
            "silence",
        ),
        (
            wound_fdb,
            [FdbEntry(node="node-a", device=TUNNEL6, mac=MAC6["b"], found=False)],
            "silence",
        ),
        (
            wound_route,
            [
                RouteLookup(
                    node="node-a", destination=DB6, source=source, incoming=incoming, found=True, type="unicast",
                    prefix="::/0", next_hop=UNDERLAY6, device="eth0", table=254, protocol=4, scope=0, metric=1024,
                    preferred_source=own,
                )
                for source, incoming, own in (("", "", NODE6["a"]), (CART6, CART_INTERFACE, ""))
            ]
            + [Neighbor(node="node-a", device="eth0", address=UNDERLAY6, found=True, state="INCOMPLETE", asked=True)],
            "silence",
        ),
        (
            wound_link_local,
            [LinkAddresses(node="node-a", device=CART_INTERFACE, family=6, found=True)],
            "silence",
        ),
        (
            lambda nodes: nodes.sysctl("a", "net/ipv6/conf/all/forwarding", "0"),
            [
                Sysctl(
                    node="node-a", name="net.ipv6.conf.all.forwarding", found=True, value="0", device="all", family=6,
                    switch="forwarding",
                )
            ],
            "silence",
        ),
    ],
    ids=["neighbor", "fdb", "route", "link-local", "forwarding"],
)  # fmt: skip
@in_namespaces
def test_a_wound_leaves_its_own_facts_and_no_others(
    wound: Callable[[TwoNodes], Any], left: list[Any], packets: str
) -> None:
    nodes = TwoNodes(dual=True)
    look(ask6())  # whom the kernel has never met is asked once
    before = of_the_path(look(ask6()))
    wound(nodes)
    after = of_the_path(look(ask6()))
    assert sorted(set(after) - set(before), key=repr) == sorted(left, key=repr)
    eth0 = nodes.index("cart", "eth0")  # what the first looks let the pod learn of its gateway
    nodes.at("cart", lambda ip: ip.neigh("del", family=AF_INET6, dst=GATEWAY6, ifindex=eth0))
    (fact,) = send(from_cart("icmp", DB6), seconds=1, **FAMILY)
    assert met(fact)[1:3] == (0, packets)


@in_namespaces
def test_routes_that_swallow() -> None:
    nodes = TwoNodes(dual=True)
    kinds = {"blackhole": "EINVAL", "unreachable": "EHOSTUNREACH", "prohibit": "EACCES"}
    for kind, error in kinds.items():
        route = {"family": AF_INET6, "dst": f"{DB6}/128", "type": kind, "proto": 4}
        nodes.at("a", lambda ip, route=route: ip.route("add", **route))
        for incoming in ("", CART_INTERFACE):
            swallowed = only(look(ask6()), RouteLookup, destination=DB6, incoming=incoming)
            assert (swallowed.found, swallowed.error, swallowed.type) == (False, error, kind)
            assert (swallowed.prefix, swallowed.protocol, swallowed.table) == (f"{DB6}/128", 4, 254)
        nodes.at("a", lambda ip, route=route: ip.route("del", **route))

    nodes.at("a", lambda ip: ip.route("del", family=AF_INET6, dst=f"{CART6}/128"))
    for incoming in ("", TUNNEL6):
        lookup = only(look(ask6()), RouteLookup, destination=CART6, incoming=incoming)
        assert (lookup.error, lookup.type, lookup.prefix) == ("EINVAL", "blackhole", f"{BLOCK6['a']}/122")
    nodes.at("a", lambda ip: ip.route("del", family=AF_INET6, dst="::/0"))
    none = only(look(ask6(ways=(Way(destination="2001:db8::1"),), local_pods=())), RouteLookup)
    assert (none.found, none.error, none.type) == (False, "ENETUNREACH", "")


@in_namespaces
def test_the_filter_of_ipv4_means_nothing_to_ipv6() -> None:
    """A blackhole that swallows what comes in is told, however strict rp_filter is."""
    nodes = TwoNodes(dual=True)
    for device in ("all", CART_INTERFACE):
        nodes.sysctl("a", f"net/ipv4/conf/{device}/rp_filter", "1")
    nodes.at("a", lambda ip: ip.rule("add", family=AF_INET6, priority=100, table=100, src=CART6, src_len=128))
    nodes.at("a", lambda ip: ip.route("add", family=AF_INET6, dst="fd00::/8", type="blackhole", table=100))
    facts = look(ask6())
    assert only(facts, RouteLookup, destination=DB6, incoming="").device == TUNNEL6
    swallowed = only(facts, RouteLookup, destination=DB6, incoming=CART_INTERFACE)
    assert (swallowed.type, swallowed.prefix, swallowed.table) == ("blackhole", "fd00::/8", 100)
    assert swallowed.rp_filter == -1


@pytest.mark.parametrize("device", [TUNNEL6, CART_INTERFACE, "eth0"])
@in_namespaces
def test_ipv6_disabled_on_a_device(device: str) -> None:
    nodes = TwoNodes(dual=True)
    nodes.sysctl("a", f"net/ipv6/conf/{device}/disable_ipv6", "1")
    facts = look(ask6())
    disabled = [one.device for one in of(facts, Sysctl, switch="disable_ipv6") if one.value == "1"]
    assert disabled == [device], "the uplink is looked at although it holds its address no more"
    held = {one.device: one.addresses for one in of(facts, LinkAddresses)}
    assert held.get(device, ()) == ()
    if device == CART_INTERFACE:
        assert only(facts, RouteLookup, destination=CART6, incoming="").prefix == f"{BLOCK6['a']}/122"
    if device == TUNNEL6:
        assert only(facts, RouteLookup, destination=DB6, incoming="").prefix == "::/0", "its routes went with it"
    (fact,) = send(from_cart("icmp", DB6), seconds=1, **FAMILY)
    assert met(fact)[1] == 0


@in_namespaces
def test_a_device_too_narrow_for_ipv6_has_no_switches_at_all() -> None:
    nodes = TwoNodes(dual=True)
    nodes.at("a", lambda ip: ip.link("set", index=nodes.index("a", TUNNEL6), mtu=1279))
    facts = look(ask6())
    assert only(facts, Link, device=TUNNEL6).mtu == 1279
    assert not only(facts, Sysctl, device=TUNNEL6, switch="disable_ipv6").found
    assert only(facts, LinkAddresses, device=TUNNEL6).addresses == ()


@in_namespaces
def test_only_the_nodes_own_switch_forwards_ipv6() -> None:
    """Unlike IPv4's: `forwarding` of a device is about router advertisements, and is not told of."""
    nodes = TwoNodes(dual=True)
    for device in (CART_INTERFACE, TUNNEL6):
        nodes.sysctl("a", f"net/ipv6/conf/{device}/forwarding", "0")
    assert met(send(from_cart("icmp", DB6), **FAMILY)[0])[2] == "answered"
    assert only(look(ask6()), Sysctl, switch="forwarding", device="all").value == "1"
    nodes.sysctl("a", "net/ipv6/conf/all/forwarding", "0")
    assert met(send(from_cart("icmp", DB6), seconds=1, **FAMILY)[0])[2] == "silence"
    forced = [one for one in of(look(ask6()), Sysctl, switch="forwarding") if one.device != "all"]
    assert {one.device for one in forced} == {CART_INTERFACE, TUNNEL6, "eth0"}
    if not any(one.found for one in forced):
        pytest.skip("this kernel has no force_forwarding (Linux 6.17)")
    for device in (CART_INTERFACE, TUNNEL6):
        nodes.sysctl("a", f"net/ipv6/conf/{device}/force_forwarding", "1")
    assert met(send(from_cart("icmp", DB6), **FAMILY)[0])[2] == "answered"
    assert {one.device for one in of(look(ask6()), Sysctl, switch="forwarding", value="1")} == {CART_INTERFACE, TUNNEL6}


@in_namespaces
def test_a_pod_remembers_a_gateway_that_is_gone() -> None:
    """So that fault and symptom can be a minute apart, and the probe shows both."""
    nodes = TwoNodes(dual=True)
    assert met(send(from_cart("icmp", DB6), **FAMILY)[0])[2] == "answered"
    wound_link_local(nodes)
    facts = look(ask6())
    seen = only(facts, PodInterface)
    assert (seen.pod_default_next_hop, seen.pod_gateway_mac) == (GATEWAY6, "ee:ee:ee:ee:ee:ee")
    assert only(facts, LinkAddresses, device=CART_INTERFACE).addresses == ()
    assert met(send(from_cart("icmp", DB6), **FAMILY)[0])[2] == "answered"


@in_namespaces
def test_the_inside_of_a_wounded_pod() -> None:
    nodes = TwoNodes(dual=True)
    eth0 = nodes.index("cart", "eth0")

    def wound(ip: Any) -> None:
        ip.neigh("replace", family=AF_INET6, dst=GATEWAY6, lladdr="02:de:ad:00:00:01", ifindex=eth0, state=128)
        ip.addr("add", index=eth0, address="fd00:10:244::1:77", prefixlen=128)

    nodes.at("cart", wound)
    seen = only(look(ask6()), PodInterface)
    assert (seen.pod_gateway_mac, seen.pod_gateway_state) == ("02:de:ad:00:00:01", "PERMANENT")
    assert {"fd00:10:244::1:77/128", f"{CART6}/128"} < set(seen.pod_addresses)

    nodes.at("cart", lambda ip: ip.route("del", family=AF_INET6, dst="::/0"))
    facts = look(ask6(send=(from_cart("icmp", DB6),)))
    assert only(facts, PodInterface).pod_default_next_hop == ""
    assert only(facts, PodRoute) == PodRoute(
        node="node-a", pod="shop/cart", destination=DB6, found=False, error="ENETUNREACH"
    )
    (fact,) = send(from_cart("icmp", DB6), **FAMILY)
    assert met(fact) == (0, 0, "unreachable", "") and result(fact).source_address == CART6

    nodes.sysctl("cart", "net/ipv6/conf/all/disable_ipv6", "1")
    seen = only(look(ask6()), PodInterface)
    assert (seen.entered, seen.pod_up, seen.pod_ipv6, seen.pod_addresses) == (True, True, False, ())
    assert only(look(ask()), PodInterface).pod_addresses == ("10.244.1.2/32",), "IPv4 lives on"
    (fact,) = send(from_cart("icmp", DB6), **FAMILY)
    assert met(fact)[:2] == (0, 0) and "own kernel" in result(fact).detail


@in_namespaces
def test_an_old_failure_of_the_peers_address_is_asked_again_over_ipv6() -> None:
    nodes = TwoNodes(dual=True)
    uplink = nodes.index("a", "eth0")
    nodes.at("a", lambda ip: ip.neigh("add", family=AF_INET6, dst=NODE6["b"], ifindex=uplink, state=32))
    found = only(look(ask6()), Neighbor, device="eth0")
    assert (found.state, found.mac) == ("REACHABLE", mac(nodes, "b", "eth0"))


# -- who listens ------------------------------------------------------------------------------------------------------


@in_namespaces
def test_a_listener_of_one_family_is_no_listener_for_the_other() -> None:
    nodes = TwoNodes(dual=True)
    echo(nodes.cart, 8080, "0.0.0.0")

    def only6() -> socket.socket:
        one = socket.socket(AF_INET6)
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(("::", 8081))
        one.listen()
        return one

    kept = nodes.cart.run(only6)
    for question, port, addresses, others in (
        (ask(), 8080, ("0.0.0.0",), ()),
        (ask6(), 8080, (), ("0.0.0.0",)),
        (ask(), 8081, (), ("::",)),
        (ask6(), 8081, ("::",), ()),
    ):
        pods = tuple(msgspec.structs.replace(pod, port=port) for pod in question.local_pods)
        seen = only(look(msgspec.structs.replace(question, local_pods=pods)), Listener)
        assert (seen.found, seen.addresses, seen.other_family) == (bool(addresses), addresses, others)
    kept.close()


def _everywhere(port: int) -> socket.socket:
    return socket.create_server(("::", port), family=AF_INET6, dualstack_ipv6=True)


@in_namespaces
def test_the_nodes_own_ports_are_looked_at_when_asked() -> None:
    TwoNodes(dual=True)
    with socket.create_server((NODE["a"], 10250)), _everywhere(10256):
        assert not of(look(ask(local_pods=())), Listener)
        ports = (
            OwnPort(name="node-a", protocol="tcp", port=10250),
            OwnPort(name="kube-system/kube-proxy-x", protocol="tcp", port=10256),
            OwnPort(name="node-a", protocol="udp", port=53),
        )
        seen = [(one.pod, one.port, one.found, one.addresses) for one in of(look(ask(own_ports=ports)), Listener)]
        assert set(seen) == {
            ("node-a", 10250, True, (NODE["a"],)),
            ("kube-system/kube-proxy-x", 10256, True, ("::",)),
            ("node-a", 53, False, ()),
            ("shop/cart", 8080, False, ()),
        }
        other = only(look(ask6(own_ports=ports[:1], local_pods=())), Listener)
        assert (other.found, other.other_family) == (False, (NODE["a"],))


# -- packets ----------------------------------------------------------------------------------------------------------


@in_namespaces
def test_a_good_path_answers_every_kind_over_ipv6() -> None:
    nodes = TwoNodes(dual=True)
    echo(nodes.db, 8080, "::")
    facts = send(
        from_cart("icmp", DB6),
        from_cart("icmp", DB6, size=-1),
        from_cart("tcp", DB6, port=8080, count=3),
        from_cart("udp", DB6, port=8080),
        from_cart("udp", DB6, port=8080, size=-1),
        SendProbe(pod="", target=CART6, protocol="icmp"),
        SendProbe(pod="", target=DB6, protocol="icmp", size=-1, count=1),
        SendProbe(pod="", target=NODE6["b"], protocol="icmp", size=-1),
        **FAMILY,
    )
    results = [result(fact) for fact in facts]
    for one in results:
        assert one.outcome == "answered" and one.answered == one.sent and one.rtt_us > 0, one
    assert [one.sent for one in results] == [2, 2, 3, 2, 2, 2, 1, 2]
    assert [one.size for one in results] == [0, 1430, 0, 0, 1430, 0, 1430, 1500], "the whole packet, header and all"
    assert [one.source_address for one in results] == [CART6] * 5 + [BLOCK6["a"]] * 2 + [NODE6["a"]]
    lookup = only(look(ask6()), RouteLookup, destination=DB6, incoming="")
    assert lookup.preferred_source == results[6].source_address


@in_namespaces
def test_refusals_of_the_target_over_ipv6() -> None:
    TwoNodes(dual=True)
    longer = "FD00:10:244:0:0:0:2:2"  # however it is written
    (udp,) = send(from_cart("udp", longer, port=81), **FAMILY)
    assert met(udp)[2] == "refused"
    tcp, udp = send(from_cart("tcp", DB6, port=81), from_cart("udp", DB6, port=81), **FAMILY)
    assert met(tcp) == (2, 0, "refused", DB6)
    assert met(udp) == (2, 0, "refused", DB6)
    assert "reset" in result(tcp).detail and "port unreachable" in result(udp).detail


@in_namespaces
def test_icmpv6_errors_name_who_sent_them() -> None:
    nodes = TwoNodes(dual=True)
    nodes.sysctl("a", "net/ipv6/icmp/ratelimit", "0")
    nodes.at("a", lambda ip: ip.route("add", family=AF_INET6, dst=f"{STRANGER6}/128", type="unreachable"))
    nodes.at("a", lambda ip: ip.route("add", family=AF_INET6, dst="fd00:99::/64", type="prohibit"))
    facts = send(
        from_cart("icmp", STRANGER6),
        from_cart("tcp", STRANGER6, port=80),
        from_cart("udp", STRANGER6, port=80),
        from_cart("icmp", "fd00:99::1"),
        from_cart("tcp", "fd00:99::1", port=80),
        **FAMILY,
    )
    for fact in facts:
        assert met(fact) == (2, 0, "unreachable", BLOCK6["a"]), fact
    assert {result(fact).detail for fact in facts[:3]} == {f"{BLOCK6['a']} says: no route"}
    assert {result(fact).detail for fact in facts[3:]} == {f"{BLOCK6['a']} says: communication prohibited"}


@in_namespaces
def test_a_routing_loop_is_unreachable_over_ipv6() -> None:
    nodes = TwoNodes(dual=True)
    tunnel = nodes.index("b", TUNNEL6)
    route = {"family": AF_INET6, "dst": f"{DB6}/128", "gateway": BLOCK6["a"], "oif": tunnel, "flags": 4}
    nodes.at("b", lambda ip: ip.route("replace", **route))
    (fact,) = send(from_cart("icmp", DB6), **FAMILY)
    assert result(fact).outcome == "unreachable" and "hop limit exceeded" in result(fact).detail


@in_namespaces
def test_packets_too_large_for_the_way_and_for_the_sender_over_ipv6() -> None:
    nodes = TwoNodes(dual=True)
    nodes.at("a", lambda ip: ip.link("set", index=nodes.index("a", TUNNEL6), mtu=1300))
    small, full = send(from_cart("icmp", DB6), from_cart("icmp", DB6, size=-1), **FAMILY)
    assert met(small)[2] == "answered"
    assert met(full)[1:] == (0, "too_big", BLOCK6["a"])
    assert result(full).sent == 2, "each packet finds out anew"
    assert result(full).size == 1430 and result(full).detail == f"{BLOCK6['a']} passes packets up to 1300 bytes"
    (udp,) = send(from_cart("udp", DB6, port=8080, size=1430), **FAMILY)
    assert met(udp)[2] == "too_big"
    (own,) = send(from_cart("icmp", DB6, size=2000), **FAMILY)
    assert met(own) == (0, 0, "too_big", ""), "the sender's kernel makes no fragments of it either"


@in_namespaces
def test_a_network_between_the_nodes_that_is_too_narrow_is_silent() -> None:
    """The peer's card takes no larger frame, and nobody says so: only the full-size packet shows it."""
    nodes = TwoNodes(dual=True)
    nodes.at("b", lambda ip: ip.link("set", index=nodes.index("b", "eth0"), mtu=1400))
    small, full = send(from_cart("icmp", DB6), from_cart("icmp", DB6, size=-1), **FAMILY)
    assert met(small)[2] == "answered"
    assert met(full) == (2, 0, "silence", "")


@in_namespaces
def test_only_what_is_said_about_this_very_packet_counts_over_ipv6() -> None:
    nodes = TwoNodes(dual=True)
    ended = threading.Event()
    inner = b"\x60\0\0\0\0\x08\x3a\x40" + socket.inet_pton(AF_INET6, CART6) + socket.inet_pton(AF_INET6, DB6)
    # An answer to, and an error about, a ping that is not ours; the kernel sums them up.
    kinds = (b"\x81\0\0\0\xff\xff\0\0", b"\x01\x03" + bytes(6) + inner + b"\x80\0\0\0\xff\xff\0\0")
    stray = nodes.db.run(lambda: socket.socket(AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))

    def chatter() -> None:
        while not ended.wait(0.01):  # more of them would fill the socket before a busy machine reads it
            for packet in kinds:
                stray.sendto(packet, (CART6, 0))

    thread = threading.Thread(target=chatter)
    thread.start()
    try:
        assert met(send(from_cart("icmp", DB6, count=5), **FAMILY)[0]) == (5, 5, "answered", "")
        nodes.sysctl("db", "net/ipv6/icmp/echo_ignore_all", "1")
        assert met(send(from_cart("icmp", DB6, count=5), seconds=1, **FAMILY)[0]) == (5, 0, "silence", "")
    finally:
        ended.set()
        thread.join()
        stray.close()


@in_namespaces
def test_the_senders_own_kernel_refuses_ipv6() -> None:
    nodes = TwoNodes(dual=True)
    nodes.at("a", lambda ip: ip.route("add", family=AF_INET6, dst=f"{STRANGER6}/128", type="blackhole"))
    (fact,) = send(SendProbe(pod="", target=STRANGER6, protocol="icmp", size=-1), **FAMILY)
    assert met(fact) == (0, 0, "unreachable", "")
    assert (result(fact).source_address, "own kernel" in result(fact).detail) == ("", True)


@in_namespaces
def test_the_other_node_answers_for_itself_over_ipv6() -> None:
    nodes = TwoNodes(dual=True)
    question = NodeAsk(
        node="node-b",
        family=6,
        tunnel_device=TUNNEL6,
        uplink_address=NODE6["b"],
        ways=(Way(destination=CART6, source=DB6, incoming=DB_INTERFACE, expected_next_hop=BLOCK6["a"]),),
        local_pods=(LocalPod(name="shop/db", address=DB6, interface=DB_INTERFACE),),
    )
    facts = nodes.b.run(lambda: look(question))
    assert only(facts, Link, device=TUNNEL6).mac == MAC6["b"]
    assert f"{DB6}/128" in only(facts, PodInterface).pod_addresses
    assert only(facts, RouteLookup, destination=CART6, incoming="").next_hop == BLOCK6["a"]


@in_namespaces
def test_whoever_is_not_asked_over_ipv6_is_not_said_to_give_no_answer() -> None:
    nodes = TwoNodes(dual=True)
    wound_link_local(nodes)
    assert not only(look(ask6()), Neighbor, address=CART6).asked, "the device has no address to ask from"
    nodes.at("a", lambda ip: ip.link("del", index=nodes.index("a", CART_INTERFACE)))
    facts = look(ask6())
    assert not only(facts, Neighbor, address=CART6).asked and not of(facts, Blind, look="neighbor")
