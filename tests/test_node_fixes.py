"""Each change to a node, on a real kernel: what the rules see is mended, what changed since is refused, junk never gets
there."""

from __future__ import annotations

import asyncio
import importlib
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.rule import CauseRule, Ref, as_text
from facts import (
    AddressHolders,
    Allocation,
    CalicoNode,
    Cause,
    Fact,
    Leg,
    Link,
    Lost,
    Neighbor,
    ProbeResult,
    RouteLookup,
    Sighting,
    Way,
)
from fixes.kernel import Kernel
from fixes.kind import EvidenceChanged, NodeKind, TooSoon, kinds
from fixes.request import stamp
from node_probe.netlink import Entry
from tests.namespaces import in_namespaces
from tests.test_collectors import look
from tests.two_nodes import (
    BLOCK,
    BLOCK6,
    CART,
    CART_INTERFACE,
    DB,
    DB6,
    FELIX,
    LINK_SCOPE,
    MAC,
    MAC6,
    NODE,
    NODE6,
    ONLINK,
    PERMANENT,
    TUNNEL,
    TUNNEL6,
    TwoNodes,
    ask6,
)

OTHER_BLOCK = "10.244.3.0"  # of a third node
WRONG = "66:00:00:00:00:99"
BOOT, NTF_SELF, AF_INET6 = 3, 2, socket.AF_INET6

LEG = Leg(
    direction="forward",
    encapsulation="vxlan",
    source="shop/cart",
    target="shop/db",
    source_address=CART,
    target_address=DB,
    source_interface=CART_INTERFACE,
    target_interface="cali2",
    source_node="node-a",
    target_node="node-b",
    source_node_address=NODE["a"],
    target_node_address=NODE["b"],
    source_tunnel_address=BLOCK["a"],
    target_tunnel_address=BLOCK["b"],
    source_tunnel_mac=MAC["a"],
    target_tunnel_mac=MAC["b"],
    target_block=f"{BLOCK['b']}/26",
    routed=True,
    steered=True,
    route_by="felix",
    expected_next_hop=BLOCK["b"],
    expected_device=TUNNEL,
    calico_version="v3.32.1",
    crosses=True,
    port_asked=True,
    protocol="tcp",
    port=5432,
)
LEG6 = msgspec.structs.replace(
    LEG,
    family=6,
    target_address=DB6,
    target_node_address=NODE6["b"],
    source_node_address=NODE6["a"],
    target_tunnel_address=BLOCK6["b"],
    source_tunnel_mac=MAC6["a"],
    target_tunnel_mac=MAC6["b"],
    target_block=f"{BLOCK6['b']}/122",
    expected_next_hop=BLOCK6["b"],
    expected_device=TUNNEL6,
    tunnel_device=TUNNEL6,
)
# The pod that is asked for lives here.
TO_CART = msgspec.structs.replace(
    LEG,
    direction="reverse",
    source="shop/db",
    target="shop/cart",
    source_address=DB,
    target_address=CART,
    source_interface="cali2",
    target_interface=CART_INTERFACE,
    source_node="node-b",
    target_node="node-a",
)
HELD = Allocation(address=DB, found=True, block=f"{BLOCK['b']}/26", block_node="node-b", node="node-b")
HELD6 = Allocation(address=DB6, found=True, block=f"{BLOCK6['b']}/122", block_node="node-b", node="node-b")
NODE_A = CalicoNode(
    name="node-a",
    address=NODE["a"],
    subnet="172.30.0.0/24",
    internal_address=NODE["a"],
    tunnel_address=BLOCK["a"],
    tunnel_mac=MAC["a"],
    vxlan_expected=True,
)
NODE6_A = msgspec.structs.replace(NODE_A, family=6, address=NODE6["a"], subnet="fd00:172:30::/64")
FOREIGN, FOREIGN6 = (msgspec.structs.replace(leg, flow="f") for leg in (LEG, LEG6))
THE_TARGETS = AddressHolders(address=DB, pods=("shop/db",))
LOST = Lost(flow="f", direction="forward")


def judged(name: str, facts: Sequence[Fact]) -> Cause | None:
    """The cause the rule of this name finds in these facts; the first one, and None when it finds nothing."""
    rule = getattr(importlib.import_module(f"engine.rules.{name}"), name)
    assert isinstance(rule, CauseRule)

    def matches(patterns: Sequence[Any], had: dict[str, Fact]) -> Iterator[dict[str, Fact]]:
        if not patterns:
            yield had
            return
        (alias, pattern), *rest = patterns
        for fact in facts:
            if isinstance(fact, pattern.kind) and all(
                as_text(getattr(fact, field))
                == (as_text(getattr(had[value.alias], value.field)) if isinstance(value, Ref) else value)
                for field, value in pattern.terms
            ):
                yield from matches(rest, {**had, alias: fact})

    for match in matches(rule.patterns, {}):
        cause = rule.judge(match, tuple(fact.id for fact in match.values()))
        if cause is not None:
            return cause
    return None


def proposed(name: str, *known: Fact, **question: Any) -> tuple[NodeKind, dict[str, str]]:
    """What is proposed for the failure mode that is seen on node a now."""
    facts = [*known, *look(**question)]
    cause = judged(name, facts)
    assert cause is not None, f"{name} sees nothing wrong in {facts}"
    kind, arguments = offered(cause, facts)
    for text in (kind.title, kind.blast_radius, kind.undo):
        assert "node-a" in text(arguments, cause.node) or text is kind.undo
    return kind, arguments


def offered(cause: Cause, facts: Sequence[Fact]) -> tuple[NodeKind, dict[str, str]]:
    """The first of the cause's kinds that can mend it."""
    for name in (cause.fix, *cause.other_fixes):
        kind = of_kind(name)
        if (arguments := kind.propose(cause, facts)) is not None:
            return kind, arguments
    raise AssertionError(f"no kind of fix for {cause}")


def mended(name: str, *known: Fact, **question: Any) -> dict[str, str]:
    """It is proposed, holds, is done, is verified, does not hold a second time, and the rule is content."""
    kind, arguments = proposed(name, *known, **question)
    if "again_after_s" in arguments:
        arguments["now"] = "yes"
    kernel = Kernel()
    assert not kind.verify(kernel, arguments)[0]
    kind.holds(kernel, arguments)
    assert kind.preview(kernel, arguments)
    kind.execute(kernel, arguments)
    right, sentence = kind.verify(kernel, arguments)
    assert right, sentence
    assert "nothing left to do" in refusal(kind, arguments)
    assert judged(name, [*known, *look(**question)]) is None
    return arguments


def nothing_offered(name: str, *known: Fact, **question: Any) -> bool:
    """The failure mode is seen, and no kind of fix goes by what is known."""
    facts = [*known, *look(**question)]
    cause = judged(name, facts)
    assert cause is not None
    return all(of_kind(one).propose(cause, facts) is None for one in (cause.fix, *cause.other_fixes))


def refusal(kind: NodeKind, arguments: Mapping[str, str]) -> str:
    with pytest.raises(EvidenceChanged) as changed:
        kind.holds(Kernel(), arguments)
    return str(changed.value)


def of_kind(name: str) -> NodeKind:
    kind = kinds()[name]
    assert isinstance(kind, NodeKind)
    return kind


# Forwarding entries

FELIX_S = Entry(address=NODE["b"], mac=MAC["b"], state="PERMANENT")


@in_namespaces
def test_a_missing_forwarding_entry_is_put_back() -> None:
    nodes = TwoNodes()
    tunnel = nodes.index("a", TUNNEL)
    nodes.at("a", lambda ip: ip.fdb("del", ifindex=tunnel, lladdr=MAC["b"], dst=NODE["b"]))
    arguments = mended("fdb_entry_missing", LEG)
    assert arguments["seen"] == ""
    assert Kernel().forwarding(TUNNEL, MAC["b"]) == FELIX_S
    kind = of_kind("replace_fdb_entry")
    assert "A living Felix does the same within 95 s" in kind.undo(arguments, "node-a")


@in_namespaces
def test_frames_that_go_to_another_node_are_sent_right_again() -> None:
    nodes = TwoNodes()
    tunnel = nodes.index("a", TUNNEL)

    def lead_to(address: str, **how: Any) -> None:
        nodes.at(
            "a",
            lambda ip: ip.fdb(
                "replace", ifindex=tunnel, lladdr=MAC["b"], dst=address, state=PERMANENT, flags=NTF_SELF, **how
            ),
        )

    lead_to("172.30.0.99")
    kind, arguments = proposed("fdb_entry_wrong_node", LEG)
    assert arguments["seen"] == "172.30.0.99"
    lead_to("172.30.0.77")
    assert refusal(kind, arguments) == f"{TUNNEL} sends {MAC['b']} to 172.30.0.77 now; it was 172.30.0.99."
    assert "not the VXLAN device with VNI 7" in refusal(kind, {**arguments, "vni": "7"})
    mended("fdb_entry_wrong_node", LEG)
    assert Kernel().forwarding(TUNNEL, MAC["b"]) == FELIX_S
    lead_to(NODE["b"], port=8472)  # the right node, but not its tunnel
    assert mended("fdb_entry_wrong_node", LEG)["seen"] == f"{NODE['b']} port 8472"
    assert Kernel().forwarding(TUNNEL, MAC["b"]) == FELIX_S


@in_namespaces
def test_entries_of_an_ipv6_tunnel_too() -> None:
    nodes, kernel = TwoNodes(dual=True), Kernel()
    tunnel = nodes.index("a", TUNNEL6)
    nodes.at("a", lambda ip: ip.fdb("del", ifindex=tunnel, lladdr=MAC6["b"], dst=NODE6["b"]))
    mended("fdb_entry_missing", LEG6, question=ask6())
    assert kernel.forwarding(TUNNEL6, MAC6["b"]) == Entry(address=NODE6["b"], mac=MAC6["b"], state="PERMANENT")
    nodes.at("a", lambda ip: ip.neigh("del", family=AF_INET6, ifindex=tunnel, dst=BLOCK6["b"]))
    mended("neighbor_missing", LEG6, question=ask6())
    nodes.at("a", lambda ip: ip.link("set", index=tunnel, address=WRONG))
    kernel.replace_neighbor(TUNNEL6, BLOCK6["b"], MAC6["b"])
    mended("vxlan_device_mac_wrong", LEG6, question=ask6())
    entry = kernel.neighbor(TUNNEL6, BLOCK6["b"])
    assert entry is not None and entry.mac == MAC6["b"]


# Neighbors


@in_namespaces
def test_a_neighbor_is_replaced_for_good() -> None:
    nodes, kernel = TwoNodes(), Kernel()
    learned = {"dst": BLOCK["b"], "lladdr": WRONG, "ifindex": nodes.index("a", TUNNEL), "state": 4}
    nodes.at("a", lambda ip: ip.neigh("replace", **learned))
    asyncio.run(asyncio.to_thread(kernel.replace_neighbor, TUNNEL, BLOCK["b"], MAC["b"]))  # as the fixer calls it
    entry = kernel.neighbor(TUNNEL, BLOCK["b"])
    assert entry is not None and (entry.mac, entry.state) == (MAC["b"], "PERMANENT")
    kernel.replace_neighbor(TUNNEL, OTHER_BLOCK, MAC["b"])
    made = kernel.neighbor(TUNNEL, OTHER_BLOCK)
    assert made is not None and made.state == "PERMANENT"
    with pytest.raises(OSError, match=r"[Dd]evice"):
        kernel.replace_neighbor("vxlan.other", BLOCK["b"], MAC["b"])


@in_namespaces
def test_what_somebody_wrote_for_a_pod_becomes_the_kernels_to_check() -> None:
    nodes, kernel = TwoNodes(), Kernel()
    pod = nodes.index("a", CART_INTERFACE)

    def write(state: int, mac: str = WRONG) -> None:
        nodes.at("a", lambda ip: ip.neigh("replace", ifindex=pod, dst=CART, lladdr=mac, state=state))

    write(PERMANENT)
    kind, arguments = proposed("pod_neighbor_wrong", TO_CART)
    own = nodes.at("cart", lambda ip: ip.link("get", ifname="eth0")[0].get("IFLA_ADDRESS"))
    assert (arguments["device"], arguments["mac"], arguments["peer"]) == (CART_INTERFACE, own, "shop/cart")
    assert kind.preview(kernel, arguments) == [f"ip neigh replace {CART} lladdr {own} dev {CART_INTERFACE} nud stale"]
    write(4)  # STALE: the next packet would have the kernel ask
    assert "the kernel checks it itself" in refusal(kind, arguments)
    write(PERMANENT, "66:00:00:00:00:77")
    assert "is 66:00:00:00:00:77 now" in refusal(kind, arguments)
    assert "nothing learns there" in refusal(kind, {**arguments, "device": TUNNEL})
    write(PERMANENT)
    mended("pod_neighbor_wrong", TO_CART)
    entry = kernel.neighbor(CART_INTERFACE, CART)
    assert entry is not None and entry.state != "PERMANENT"


@in_namespaces
def test_what_somebody_wrote_for_the_peers_node_becomes_the_kernels_to_check() -> None:
    nodes, kernel = TwoNodes(), Kernel()
    uplink = nodes.index("a", "eth0")
    own = nodes.at("b", lambda ip: ip.link("get", ifname="eth0")[0].get("IFLA_ADDRESS"))
    nodes.at("a", lambda ip: ip.neigh("replace", ifindex=uplink, dst=NODE["b"], lladdr=WRONG, state=PERMANENT))
    peer = Link(node="node-b", device="eth0", found=True, up=True, mac=own, node_address=NODE["b"])
    back = Neighbor(node="node-b", device="eth0", address=NODE["a"], found=True, mac="66:00:00:00:00:01", state="STALE")
    question = {"ways": (Way(destination=DB, source=CART, incoming=CART_INTERFACE, expected_peer=NODE["b"]),)}
    arguments = mended("underlay_neighbor_wrong", LEG, NODE_A, peer, back, **question)
    assert (arguments["device"], arguments["address"], arguments["mac"]) == ("eth0", NODE["b"], own)
    undo = of_kind("replace_neighbor").undo(arguments, "node-a")
    assert undo.startswith(f"ip neigh replace {NODE['b']} lladdr {WRONG} dev eth0 nud permanent.")
    entry = kernel.neighbor("eth0", NODE["b"])
    assert entry is not None and entry.state != "PERMANENT"


@in_namespaces
def test_only_what_the_kernel_learned_is_flushed() -> None:
    nodes, kernel, kind = TwoNodes(), Kernel(), of_kind("flush_neighbor")
    uplink, tunnel = nodes.index("a", "eth0"), nodes.index("a", TUNNEL)
    arguments = {"device": "eth0", "address": NODE["b"], "seen": WRONG}

    def write(state: int, mac: str = WRONG) -> None:
        nodes.at("a", lambda ip: ip.neigh("replace", ifindex=uplink, dst=NODE["b"], lladdr=mac, state=state))

    write(4)  # STALE
    kind.holds(kernel, arguments)
    assert kind.preview(kernel, arguments) == [f"ip neigh del {NODE['b']} dev eth0"]
    kind.execute(kernel, arguments)
    assert kernel.neighbor("eth0", NODE["b"]) is None
    assert kind.verify(kernel, arguments)[0]
    assert "unresolved now" in refusal(kind, arguments)
    write(4, "66:00:00:00:00:77")
    assert "is 66:00:00:00:00:77 now" in refusal(kind, arguments)
    write(PERMANENT)
    assert "PERMANENT; only an entry the kernel learned" in refusal(kind, arguments)
    nodes.at("a", lambda ip: ip.neigh("replace", ifindex=tunnel, dst=BLOCK["b"], lladdr=WRONG, state=4))
    with pytest.raises(ValueError, match="nothing relearns"):
        kind.holds(kernel, {**arguments, "device": TUNNEL, "address": BLOCK["b"]})


# Devices


@in_namespaces
def test_a_tunnel_that_is_down_is_set_up() -> None:
    nodes = TwoNodes()
    nodes.at("a", lambda ip: ip.link("set", index=nodes.index("a", TUNNEL), state="down"))
    arguments = mended("vxlan_device_down", LEG)
    assert arguments == {"device": TUNNEL, "kind": "vxlan", "pod": "", "felix_s": "10"}
    kind = of_kind("set_link_up")
    assert "is a veth device, not a vxlan device" in refusal(kind, {**arguments, "device": "eth0"})
    assert "no device vxlan9 any more" in refusal(kind, {**arguments, "device": "vxlan9"})


@in_namespaces
def test_a_pods_interface_that_is_down_is_set_up() -> None:
    nodes = TwoNodes()
    nodes.at("a", lambda ip: ip.link("set", index=nodes.index("a", CART_INTERFACE), state="down"))
    arguments = mended("pod_interface_down", LEG)
    assert (arguments["device"], arguments["pod"]) == (CART_INTERFACE, "shop/cart")
    kind = of_kind("set_link_up")
    assert "traffic of shop/cart" in kind.blast_radius(arguments, "node-a")
    assert "Felix never does this by itself" in kind.undo(arguments, "node-a")


@in_namespaces
def test_a_tunnels_mac_is_set_back_and_its_neighbors_stay() -> None:
    nodes, kernel = TwoNodes(), Kernel()
    tunnel = nodes.index("a", TUNNEL)
    before = kernel.neighbor(TUNNEL, BLOCK["b"])
    assert before is not None
    nodes.at("a", lambda ip: ip.link("set", index=tunnel, address=WRONG))
    assert kernel.neighbor(TUNNEL, BLOCK["b"]) is None, "the kernel no longer forgets them: this fix needs no care"
    kernel.replace_neighbor(TUNNEL, BLOCK["b"], MAC["b"])
    kind, arguments = proposed("vxlan_device_mac_wrong", LEG)
    assert kind.preview(kernel, arguments) == [
        f"ip link set {TUNNEL} address {MAC['a']}",
        f"ip neigh replace {BLOCK['b']} lladdr {MAC['b']} dev {TUNNEL} nud permanent",
    ]
    mended("vxlan_device_mac_wrong", LEG)
    assert kernel.neighbor(TUNNEL, BLOCK["b"]) == before
    nodes.at("a", lambda ip: ip.link("set", index=tunnel, address="66:00:00:00:00:77"))
    assert refusal(kind, arguments) == f"{TUNNEL} is 66:00:00:00:00:77 now; it was {WRONG}."


@in_namespaces
def test_a_tunnels_sums_are_made_by_the_kernel() -> None:
    TwoNodes()
    kernel = Kernel()
    tried = ProbeResult(
        node="node-a", pod="shop/cart", source_address=CART, target_address=DB, protocol="tcp", port=5432, sent=3,
        answered=0, outcome="silence",
    )  # fmt: skip
    arrived = Sighting(
        node="node-b", way="in", source_address=CART, target_address=DB, seen=3, bad_checksums=3
    )  # not to be had here: no card of this machine sums wrongly
    cause = judged("checksum_offload_broken", [LEG, tried, arrived])
    assert cause is not None
    kind = of_kind(cause.fix)
    arguments = kind.propose(cause, [LEG, tried, arrived])
    assert arguments == {"device": TUNNEL, "vni": "4096"}
    assert kernel.sums(TUNNEL) is True
    kind.holds(kernel, arguments)
    assert kind.preview(kernel, arguments) == [f"ethtool -K {TUNNEL} tx-checksum-ip-generic off"]
    kind.execute(kernel, arguments)
    assert kind.verify(kernel, arguments)[0]
    assert kernel.sums(TUNNEL) is False
    assert kernel.sums("eth0") is True
    assert "is off already" in refusal(kind, arguments)
    with pytest.raises(OSError, match="No such device"):
        kernel.stop_sums("vxlan9")
    assert kind.propose(msgspec.structs.replace(cause, severity="warns"), [LEG, tried, arrived]) is None


# Switches


@in_namespaces
@pytest.mark.parametrize(
    ("switch", "name", "rule"),
    [
        ("net/ipv4/ip_forward", "net.ipv4.ip_forward", "ip_forwarding_off"),
        (f"net/ipv4/conf/{TUNNEL}/forwarding", f"net.ipv4.conf.{TUNNEL}.forwarding", "ip_forwarding_off"),
        (f"net/ipv4/conf/{CART_INTERFACE}/proxy_arp", f"net.ipv4.conf.{CART_INTERFACE}.proxy_arp", "proxy_arp_off"),
    ],
)
def test_a_switch_is_set_back(switch: str, name: str, rule: str) -> None:
    nodes = TwoNodes()
    nodes.sysctl("a", switch, "0")
    arguments = mended(rule, msgspec.structs.replace(LEG, source_block="10.244.1.0/26"))
    assert arguments == {"name": name, "value": "1", "seen": "0", "felix_s": "0"}
    assert Path("/proc/sys", switch).read_text() == "1\n"
    kind = of_kind("set_sysctl")
    typed = name.replace(TUNNEL, TUNNEL.replace(".", "/"))  # as sysctl takes it
    assert kind.undo(arguments, "node-a").startswith(f"sysctl -w {typed}=0. ")


@in_namespaces
def test_ipv6_has_one_switch_for_the_whole_node() -> None:
    nodes = TwoNodes(dual=True)
    nodes.sysctl("a", "net/ipv6/conf/all/forwarding", "0")
    switch = "net.ipv6.conf.all.forwarding"
    leg = msgspec.structs.replace(LEG6, forwarding=switch)
    arguments = mended("ip_forwarding_off", leg, question=ask6())
    assert (arguments["name"], arguments["value"]) == (switch, "1")
    assert "router advertisements" in of_kind("set_sysctl").blast_radius(arguments, "node-a")


@in_namespaces
def test_of_several_switches_none_is_proposed() -> None:
    nodes = TwoNodes()
    for device in (TUNNEL, CART_INTERFACE):
        nodes.sysctl("a", f"net/ipv4/conf/{device}/forwarding", "0")
    facts = [LEG, *look()]
    cause = judged("ip_forwarding_off", facts)
    assert cause is not None
    assert of_kind(cause.fix).propose(cause, facts) is None


@in_namespaces
def test_ipv6_is_taken_again_by_the_tunnel() -> None:
    nodes = TwoNodes(dual=True)
    nodes.sysctl("a", f"net/ipv6/conf/{TUNNEL6}/disable_ipv6", "1")
    leg = msgspec.structs.replace(LEG6, entry_device=CART_INTERFACE)
    arguments = mended("ipv6_disabled", leg, question=ask6())
    assert arguments == {"name": f"net.ipv6.conf.{TUNNEL6}.disable_ipv6", "value": "0", "seen": "1", "felix_s": "0"}
    assert "Felix's to put back" in of_kind("set_sysctl").blast_radius(arguments, "node-a")
    for device in (TUNNEL6, CART_INTERFACE):
        nodes.sysctl("a", f"net/ipv6/conf/{device}/disable_ipv6", "1")
    assert nothing_offered("ipv6_disabled", leg, question=ask6())


@in_namespaces
@pytest.mark.parametrize("switch", [TUNNEL, "all"])
def test_a_strict_filter_is_made_loose_where_it_refused_packets(switch: str) -> None:
    nodes, kernel, kind = TwoNodes(), Kernel(), of_kind("set_sysctl")
    nodes.sysctl("a", f"net/ipv4/conf/{switch}/rp_filter", "1")
    refused = RouteLookup(
        node="node-a", destination=CART, source=DB, incoming=TUNNEL, found=False, error="EXDEV", rp_filter=1
    )
    evidence = (TO_CART.id, refused.id)
    cause = Cause(
        rule="reverse_path_filter_drops", title="", text="", node="node-a", evidence=evidence, heals_within_s=0
    )
    arguments = kind.propose(cause, [TO_CART, refused])
    assert arguments == {"name": f"net.ipv4.conf.{TUNNEL}.rp_filter", "value": "2", "seen": "1", "felix_s": "0"}
    loose = msgspec.structs.replace(refused, rp_filter=0)
    assert kind.propose(msgspec.structs.replace(cause, evidence=(TO_CART.id, loose.id)), [TO_CART, loose]) is None
    kind.holds(kernel, arguments)
    assert "forged source address" in kind.blast_radius(arguments, "node-a")
    kind.execute(kernel, arguments)
    assert kind.verify(kernel, arguments)[0]
    for one in ("all", TUNNEL):
        nodes.sysctl("a", f"net/ipv4/conf/{one}/rp_filter", "0")
    assert "is 0 now; it was 1" in refusal(kind, arguments)


# Routes


def sibling(nodes: TwoNodes, **how: Any) -> None:
    """The route of a third node's block, as Felix 3.32 writes it."""
    gateway = {"gateway": OTHER_BLOCK, "oif": nodes.index("a", TUNNEL), "flags": ONLINK}
    nodes.at(
        "a", lambda ip: ip.route("add", dst=f"{OTHER_BLOCK}/26", proto=BOOT, metrics={"mtu": 1450}, **gateway, **how)
    )


def without(nodes: TwoNodes, destination: str, **how: Any) -> None:
    nodes.at("a", lambda ip: ip.route("del", dst=destination, **how))


@in_namespaces
def test_a_missing_route_is_written_as_its_siblings_are() -> None:
    nodes, kernel = TwoNodes(), Kernel()
    sibling(nodes)
    without(nodes, f"{BLOCK['b']}/26")
    kind, arguments = proposed("route_missing", LEG, HELD, NODE_A)
    assert kind.preview(kernel, arguments) == [
        f"ip route replace {BLOCK['b']}/26 via {BLOCK['b']} dev {TUNNEL} proto boot onlink mtu 1450"
    ]
    mended("route_missing", LEG, HELD, NODE_A)
    written, other = kernel.way(DB).route, kernel.way("10.244.3.9").route
    assert written is not None and other is not None
    assert written == replace(other, destination=BLOCK["b"], next_hop=BLOCK["b"])


@in_namespaces
def test_alone_it_is_written_as_this_release_writes_it() -> None:
    nodes, kernel = TwoNodes(), Kernel()
    without(nodes, f"{BLOCK['b']}/26")
    kind, arguments = proposed("route_missing", LEG, HELD, NODE_A)
    route = f"ip route replace {BLOCK['b']}/26 via {BLOCK['b']} dev {TUNNEL} proto {FELIX} onlink"
    assert kind.preview(kernel, arguments) == [f"{route} mtu 1450"]
    assert kind.preview(kernel, {**arguments, "version": "v3.29.0"}) == [route]
    assert "No other route of Felix here" in refusal(kind, {**arguments, "version": ""})
    mended("route_missing", LEG, HELD, NODE_A)


@in_namespaces
def test_a_route_to_another_node_or_past_the_tunnel_is_replaced() -> None:
    nodes = TwoNodes()
    sibling(nodes)
    block, tunnel, uplink = f"{BLOCK['b']}/26", nodes.index("a", TUNNEL), nodes.index("a", "eth0")
    astray = {"dst": block, "gateway": OTHER_BLOCK, "oif": tunnel, "flags": ONLINK, "proto": BOOT}
    nodes.at("a", lambda ip: ip.route("replace", **astray))
    mended("route_wrong_next_hop", LEG, HELD, NODE_A)
    nodes.at("a", lambda ip: ip.route("replace", dst=block, gateway=NODE["b"], oif=uplink, proto=4))
    mended("route_wrong_device", LEG, HELD, NODE_A)
    assert [one.prefix for one in Kernel().routes(4)].count(block) == 1


@in_namespaces
def test_a_block_of_another_node_is_never_led_away_for_one_borrowed_address() -> None:
    nodes, kernel = TwoNodes(), Kernel()
    sibling(nodes)
    block, tunnel = f"{BLOCK['b']}/26", nodes.index("a", TUNNEL)
    borrowed = msgspec.structs.replace(HELD, block_node="node-c")
    astray = {"dst": block, "gateway": OTHER_BLOCK, "oif": tunnel, "flags": ONLINK, "proto": BOOT}
    nodes.at("a", lambda ip: ip.route("replace", **astray))
    assert mended("route_wrong_next_hop", LEG, borrowed, NODE_A)["destination"] == f"{DB}/32"
    assert kernel.way("10.244.2.50").route is not None
    assert str(kernel.way("10.244.2.50")) == f"{block} via {OTHER_BLOCK} dev {TUNNEL} metric 0"
    without(nodes, f"{DB}/32")
    facts = [LEG, NODE_A, *look()]  # whose block it is was not read
    cause = judged("route_wrong_next_hop", facts)
    assert cause is not None
    assert of_kind(cause.fix).propose(cause, facts) is None


@in_namespaces
def test_a_missing_route_by_the_uplink_is_written_with_felix_own_protocol() -> None:
    nodes, kernel = TwoNodes(), Kernel()
    direct = msgspec.structs.replace(
        LEG, encapsulation="direct", expected_device="", expected_next_hop=NODE["b"], cross_subnet=True
    )
    without(nodes, f"{BLOCK['b']}/26")
    kind, arguments = proposed("route_missing", direct, HELD, NODE_A)
    route = f"ip route replace {BLOCK['b']}/26 via {NODE['b']} dev eth0 proto {FELIX} onlink"
    assert kind.preview(kernel, arguments) == [route]
    mended("route_missing", direct, HELD, NODE_A)


@in_namespaces
def test_a_pods_own_route_gets_the_metric_its_siblings_have() -> None:
    nodes, kernel = TwoNodes(), Kernel()
    pod = nodes.index("a", CART_INTERFACE)
    held = msgspec.structs.replace(HELD, address=CART, block_node="node-a", node="node-a")

    question = {"ways": (Way(destination=CART, source="", incoming=""),)}
    without(nodes, f"{CART}/32", scope=LINK_SCOPE, priority=1024)
    kind, arguments = proposed("pod_route_missing", TO_CART, held, NODE_A, **question)
    alone = f"ip route replace {CART}/32 dev {CART_INTERFACE} proto {FELIX} scope link"
    assert kind.preview(kernel, arguments) == [f"{alone} metric 1024"]
    assert kind.preview(kernel, {**arguments, "version": "v3.31.7"}) == [alone]
    nodes.at("a", lambda ip: ip.link("add", ifname="cali9", kind="veth", peer={"ifname": "peer9"}, state="up"))
    other = nodes.index("a", "cali9")
    nodes.at("a", lambda ip: ip.route("add", dst="10.244.1.9/32", oif=other, scope=LINK_SCOPE, proto=BOOT))
    unmetered = f"ip route replace {CART}/32 dev {CART_INTERFACE} proto boot scope link"
    assert kind.preview(kernel, arguments) == [unmetered], "3.31, or a 3.32 of another build: siblings tell"
    nodes.at("a", lambda ip: ip.route("del", dst="10.244.1.9/32", scope=LINK_SCOPE))
    mended("pod_route_missing", TO_CART, held, NODE_A, **question)
    (route,) = (one for one in kernel.routes(4) if one.prefix == f"{CART}/32")
    assert (route.device, route.protocol, route.scope, route.metric) == (pod, FELIX, LINK_SCOPE, 1024)
    nodes.at("a", lambda ip: ip.link("set", index=pod, state="down"))
    assert f"{CART_INTERFACE} is down; it takes no route" in refusal(kind, arguments)


@in_namespaces
def test_ipv6_routes_have_the_metric_of_the_kernel() -> None:
    nodes, kernel = TwoNodes(dual=True), Kernel()
    block = f"{BLOCK6['b']}/122"
    before = kernel.way(DB6).route
    assert before is not None
    nodes.at("a", lambda ip: ip.route("del", family=AF_INET6, dst=block))
    before_mtu = msgspec.structs.replace(LEG6, calico_version="v3.29.0")  # as the nodes of this test are programmed
    mended("route_missing", before_mtu, HELD6, NODE_A, question=ask6())
    assert kernel.way(DB6).route == before
    assert before.metric == 1024
    uplink = nodes.index("a", "eth0")
    foreign = {"family": AF_INET6, "dst": f"{DB6}/128", "gateway": NODE6["b"], "oif": uplink, "proto": BOOT}
    nodes.at("a", lambda ip: ip.route("add", **foreign))
    mended("foreign_route_to_pod", FOREIGN6, NODE6_A, HELD6, LOST, question=ask6())
    nodes.at("a", lambda ip: ip.route("add", family=AF_INET6, dst=f"{DB6}/128", type="blackhole", proto=BOOT))
    mended("route_blackholed", FOREIGN6, HELD6, question=ask6())
    assert kernel.way(DB6).route == before


@in_namespaces
def test_a_route_is_looked_at_twice_one_refresh_of_felix_apart() -> None:
    nodes, kernel = TwoNodes(), Kernel()
    sibling(nodes)
    without(nodes, f"{BLOCK['b']}/26")
    kind, arguments = proposed("route_missing", LEG, HELD, msgspec.structs.replace(NODE_A, route_refresh_s=200))
    assert arguments["again_after_s"] == "205"
    now = datetime.now(UTC)
    with pytest.raises(TooSoon) as soon:
        kind.holds(kernel, {**arguments, "seen_at": stamp(now)})
    assert 200 < soon.value.wait_s <= 205
    with pytest.raises(TooSoon):  # asked for with a shorter time than Felix takes
        kind.holds(kernel, {**arguments, "seen_at": stamp(now - timedelta(seconds=60)), "again_after_s": "1"})
    due = {**arguments, "seen_at": stamp(now - timedelta(seconds=300))}
    for junk in ({"seen_at": ""}, {"seen_at": "2026-11-26T02:00:00"}, {"again_after_s": "-1"}):
        with pytest.raises(ValueError, match=r"seen_at|isoformat|again_after_s"):
            kind.holds(kernel, {**due, **junk})
    port = answering(200)
    assert "does not want it and would remove it again" in refusal(kind, {**due, "felix_port": str(port)})
    kind.holds(kernel, {**due, "felix_port": str(answering(503))})
    kind.holds(kernel, due)  # nothing listens: Felix is dead
    kind.holds(kernel, {**due, "felix_port": str(port), "seen_at": stamp(now), "now": "yes"})
    kind.execute(kernel, due)
    assert "nothing left to do" in refusal(kind, {**arguments, "seen_at": stamp(now)}), "told before the second look"


def answering(status: int) -> int:
    """The port of a Felix that answers with this."""

    class Felix(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Felix)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


@in_namespaces
def test_a_way_that_changed_since_is_left_alone() -> None:
    nodes = TwoNodes()
    uplink = nodes.index("a", "eth0")
    sibling(nodes)
    without(nodes, f"{BLOCK['b']}/26")
    kind, arguments = proposed("route_missing", LEG, HELD, NODE_A)
    nodes.at("a", lambda ip: ip.route("add", dst="10.244.0.0/16", gateway=NODE["b"], oif=uplink))
    assert refusal(kind, arguments) == (
        f"The way to {DB} is 10.244.0.0/16 via {NODE['b']} dev eth0 metric 0 now; "
        "it was 0.0.0.0/0 via 172.30.0.1 dev eth0 metric 0."
    )
    nodes.at("a", lambda ip: ip.route("add", dst=f"{DB}/32", gateway=NODE["b"], oif=uplink))
    seen = f"{DB}/32 via {NODE['b']} dev eth0 metric 0"
    assert "would win over the route that is to be written" in refusal(kind, {**arguments, "seen": seen, "now": "yes"})


@in_namespaces
def test_a_foreign_route_is_deleted_and_nothing_else() -> None:
    nodes, kernel = TwoNodes(), Kernel()
    uplink = nodes.index("a", "eth0")
    before = kernel.routes(4)
    nodes.at("a", lambda ip: ip.route("add", dst=f"{DB}/32", gateway="172.30.0.77", oif=uplink, priority=5, proto=BOOT))
    nodes.at("a", lambda ip: ip.route("add", dst=f"{DB}/32", gateway="172.30.0.78", oif=uplink, priority=7, proto=4))
    kind, arguments = proposed("foreign_route_to_pod", FOREIGN, NODE_A, HELD, LOST)
    route = f"{DB}/32 via 172.30.0.77 dev eth0 proto boot metric 5"
    assert kind.preview(kernel, arguments) == [f"ip route del {route}"]
    assert kind.undo(arguments, "node-a") == f"ip route add {route}. Felix never does this by itself."
    kind.holds(kernel, arguments)
    kind.execute(kernel, arguments)
    assert kind.verify(kernel, arguments)[0]
    assert "nothing left to do" in refusal(kind, arguments)
    mended("foreign_route_to_pod", FOREIGN, NODE_A, HELD, LOST)
    assert kernel.routes(4) == before


@in_namespaces
def test_a_blackhole_by_hand_is_deleted_but_not_felix_own() -> None:
    nodes, kernel = TwoNodes(), Kernel()
    before = kernel.routes(4)
    nodes.at("a", lambda ip: ip.route("add", dst=f"{DB}/32", type="blackhole", proto=BOOT))
    arguments = mended("route_blackholed", FOREIGN, HELD)
    assert arguments["type"] == "blackhole"
    assert kernel.routes(4) == before
    for dst, protocol in ((f"{DB}/32", FELIX), (f"{DB}/32", 12)):
        nodes.at("a", lambda ip, dst=dst, by=protocol: ip.route("add", dst=dst, type="blackhole", proto=by))
        facts = [FOREIGN, HELD, *look()]
        cause = judged("route_blackholed", facts)
        assert cause is not None
        assert of_kind(cause.fix).propose(cause, facts) is None
        without(nodes, dst)


@in_namespaces
def test_what_is_left_over_on_a_pods_interface_is_deleted_where_felix_does_not() -> None:
    nodes, kernel = TwoNodes(), Kernel()
    before = kernel.routes(4)
    pod = nodes.index("a", CART_INTERFACE)
    nodes.at("a", lambda ip: ip.route("add", dst=f"{DB}/32", oif=pod, scope=LINK_SCOPE, proto=BOOT))
    known = (LEG, HELD, NODE_A, THE_TARGETS)
    kind, arguments = proposed("route_shadowed", *known)
    assert kind.undo(arguments, "node-a").endswith("A living Felix does the same within 95 s.")
    now = datetime.now(UTC)
    with pytest.raises(TooSoon):
        kind.holds(kernel, {**arguments, "seen_at": stamp(now)})
    due = {**arguments, "seen_at": stamp(now - timedelta(seconds=100))}
    assert "at its refresh left this route" in refusal(kind, {**due, "felix_port": str(answering(200))})
    kind.holds(kernel, {**due, "felix_port": str(answering(503))})
    # Somebody behind that interface has the address.
    nodes.at("a", lambda ip: ip.neigh("replace", ifindex=pod, dst=DB, lladdr=WRONG, state=4))
    assert "a pod there may have it" in refusal(kind, due)
    nodes.at("a", lambda ip: ip.neigh("del", ifindex=pod, dst=DB))
    for holders in ((), (msgspec.structs.replace(THE_TARGETS, pods=("shop/db", "shop/twin")),)):
        assert nothing_offered("route_shadowed", LEG, HELD, NODE_A, *holders)
    mended("route_shadowed", *known)
    assert kernel.routes(4) == before


@in_namespaces
def test_a_longer_route_into_the_tunnel_is_deleted_and_a_borrowed_address_keeps_its_own() -> None:
    nodes, kernel = TwoNodes(), Kernel()
    before = kernel.routes(4)
    tunnel = nodes.index("a", TUNNEL)
    stale = {"dst": f"{DB}/32", "gateway": OTHER_BLOCK, "oif": tunnel, "flags": ONLINK, "proto": FELIX}
    nodes.at("a", lambda ip: ip.route("add", **stale))
    kind, _ = proposed("route_wrong_next_hop", LEG, HELD, NODE_A)
    assert kind.name == "delete_foreign_route"
    mended("route_wrong_next_hop", LEG, HELD, NODE_A)
    assert kernel.routes(4) == before
    nodes.at("a", lambda ip: ip.route("add", **stale))
    borrowed = msgspec.structs.replace(HELD, block_node="node-c")
    kind, _ = proposed("route_wrong_next_hop", LEG, borrowed, NODE_A)
    assert kind.name == "replace_route"
    mended("route_wrong_next_hop", LEG, borrowed, NODE_A)
    (own,) = (one for one in kernel.routes(4) if one.prefix == f"{DB}/32")
    assert own.next_hop == BLOCK["b"]


@in_namespaces
def test_a_stronger_route_to_a_pod_is_deleted_and_one_in_place_of_felix_own_is_replaced() -> None:
    nodes, kernel = TwoNodes(), Kernel()
    held = msgspec.structs.replace(HELD, address=CART, block_node="node-a", node="node-a")
    known = (TO_CART, held, NODE_A, msgspec.structs.replace(THE_TARGETS, address=CART, pods=("shop/cart",)))
    question = {"ways": (Way(destination=CART, source="", incoming=""),)}
    nodes.at("a", lambda ip: ip.link("add", ifname="cali9", kind="veth", peer={"ifname": "peer9"}, state="up"))
    nodes.at("a", lambda ip: ip.link("set", index=nodes.index("a", "peer9"), state="up"))
    other = nodes.index("a", "cali9")
    before = kernel.routes(4)
    astray = {"dst": f"{CART}/32", "oif": other, "scope": LINK_SCOPE, "proto": BOOT}
    nodes.at("a", lambda ip: ip.route("add", **astray))  # metric 0 wins over Felix's 1024
    kind, arguments = proposed("pod_route_wrong_device", *known, **question)
    assert (kind.name, arguments["behind"]) == ("delete_foreign_route", CART_INTERFACE)
    without(nodes, f"{CART}/32", scope=LINK_SCOPE, priority=1024)
    assert "no route of Calico for" in refusal(kind, {**arguments, "now": "yes"})
    nodes.at("a", lambda ip: ip.route("add", **{**astray, "priority": 1024, "oif": nodes.index("a", CART_INTERFACE)}))
    mended("pod_route_wrong_device", *known, **question)
    assert [one.prefix for one in kernel.routes(4)] == [one.prefix for one in before]
    nodes.at("a", lambda ip: ip.route("add", dst=f"{CART}/32", type="blackhole", proto=BOOT))
    assert proposed("pod_route_wrong_device", *known, **question)[0].name == "delete_foreign_route"
    mended("pod_route_wrong_device", *known, **question)
    nodes.at("a", lambda ip: ip.route("replace", **{**astray, "priority": 1024}))
    kind, _ = proposed("pod_route_wrong_device", *known, **question)
    assert kind.name == "replace_route"
    mended("pod_route_wrong_device", *known, **question)


@in_namespaces
def test_a_foreign_route_that_is_felix_to_remove_or_the_only_one_stays() -> None:
    nodes, kind = TwoNodes(), of_kind("delete_foreign_route")
    uplink, tunnel = nodes.index("a", "eth0"), nodes.index("a", TUNNEL)
    nodes.at("a", lambda ip: ip.route("add", dst=f"{DB}/32", gateway="172.30.0.77", oif=uplink))
    _, arguments = proposed("foreign_route_to_pod", FOREIGN, NODE_A, HELD, LOST)
    kind.holds(Kernel(), arguments)
    without(nodes, f"{BLOCK['b']}/26")
    assert "no route of Calico for" in refusal(kind, arguments)
    without(nodes, f"{DB}/32")
    nodes.at("a", lambda ip: ip.route("add", dst=f"{DB}/32", oif=tunnel, scope=LINK_SCOPE))
    by_tunnel = {**arguments, "device": TUNNEL, "next_hop": ""}
    assert "what leads there is Felix's to remove" in refusal(kind, by_tunnel)
    without(nodes, f"{DB}/32", scope=LINK_SCOPE)
    nodes.at("a", lambda ip: ip.route("add", dst=f"{DB}/32", oif=nodes.index("a", CART_INTERFACE), scope=LINK_SCOPE))
    to_a_pod = {**by_tunnel, "device": CART_INTERFACE}
    assert "what leads there is Felix's to remove" in refusal(kind, to_a_pod)


# Words of requests that people, or programs, made by hand

GOOD = {
    "replace_neighbor": {"device": TUNNEL, "vni": "4096", "mac": MAC["b"], "address": BLOCK["b"]},
    "replace_fdb_entry": {
        "device": TUNNEL, "vni": "4096", "mac": MAC["b"], "address": NODE["b"], "seen": "", "peer": "node-b"
    },
    "flush_neighbor": {"device": "eth0", "address": NODE["b"], "seen": WRONG},
    "set_link_up": {"device": TUNNEL, "kind": "vxlan"},
    "set_link_mac": {"device": TUNNEL, "vni": "4096", "mac": MAC["a"], "seen": WRONG},
    "set_sysctl": {"name": "net.ipv4.ip_forward", "value": "1", "seen": "0"},
    "disable_checksum_offload": {"device": TUNNEL, "vni": "4096"},
    "replace_route": {
        "destination": "10.244.2.0/26", "by": "tunnel", "device": TUNNEL, "own": "", "next_hop": BLOCK["b"],
        "address": DB, "seen": "ENETUNREACH", "version": "v3.32.1", "felix_port": "9099", "again_after_s": "95",
        "seen_at": "2026-11-26T00:00:00Z", "peer": "node-b",
    },
    "delete_foreign_route": {
        "destination": f"{DB}/32", "type": "unicast", "next_hop": NODE["b"], "device": "eth0", "protocol": "3",
        "metric": "0", "address": DB, "block": "10.244.2.0/26",
    },
}  # fmt: skip

JUNK = [
    *((kind, {"device": bad}) for kind in GOOD if "device" in GOOD[kind] for bad in ("", "../../etc", "a b", "x" * 16)),
    ("replace_fdb_entry", {"mac": "ff:ff:ff:ff:ff:ff"}),
    ("replace_fdb_entry", {"mac": "66:00:00:00:00:0b; reboot"}),
    ("replace_fdb_entry", {"address": "db"}),
    ("replace_fdb_entry", {"address": "224.0.0.1"}),
    ("replace_fdb_entry", {"address": "0.0.0.0"}),
    ("flush_neighbor", {"seen": ""}),
    ("flush_neighbor", {"address": "fe80::1%eth0"}),
    ("set_link_up", {"kind": "dummy"}),
    ("set_link_mac", {"mac": "00:00:00:00:00:00"}),
    ("set_link_mac", {"seen": "x"}),
    ("set_sysctl", {"name": "kernel.core_pattern"}),
    ("set_sysctl", {"name": "net.ipv4.conf.all.rp_filter", "value": "2"}),
    ("set_sysctl", {"name": "net.ipv4.conf.eth0/../../../kernel.forwarding"}),
    ("set_sysctl", {"name": "net.ipv4.conf.eth0.rp_filter", "value": "0"}),
    ("set_sysctl", {"name": "net.ipv4.conf.eth0.accept_redirects"}),
    ("set_sysctl", {"name": "net.ipv4.conf....forwarding"}),
    ("set_sysctl", {"value": "0"}),
    ("set_sysctl", {"name": "net.ipv6.conf.all.disable_ipv6", "value": "0"}),
    ("set_sysctl", {"name": "net.ipv6.conf.eth0.disable_ipv6", "value": "1"}),
    ("set_sysctl", {"name": "net.ipv6.conf.eth0.proxy_arp"}),
    ("set_sysctl", {"name": "net.ipv4.conf.eth0.disable_ipv6", "value": "0"}),
    ("set_sysctl", {"value": "1\n0"}),
    ("set_sysctl", {"seen": "0; reboot"}),
    ("disable_checksum_offload", {"vni": "all"}),
    ("replace_route", {"destination": "0.0.0.0/0"}),
    ("replace_route", {"destination": "10.244.2.0"}),
    ("replace_route", {"destination": "10.244.2.1/26"}),
    ("replace_route", {"destination": "10.244.3.0/26"}),
    ("replace_route", {"by": "wire"}),
    ("replace_route", {"by": "uplink"}),
    ("replace_route", {"by": "pod", "next_hop": ""}),
    ("replace_route", {"next_hop": ""}),
    ("replace_route", {"felix_port": "x"}),
    ("delete_foreign_route", {"destination": "0.0.0.0/0"}),
    ("delete_foreign_route", {"destination": "10.244.2.0/26"}),
    ("delete_foreign_route", {"destination": "10.244.2.0/26", "behind": TUNNEL}),
    ("delete_foreign_route", {"destination": "10.244.3.0/27"}),
    ("delete_foreign_route", {"again_after_s": "soon"}),
    ("delete_foreign_route", {"again_after_s": "95"}),
    ("delete_foreign_route", {"behind": "a b"}),
    ("delete_foreign_route", {"address": "10.244.2.3"}),
    ("delete_foreign_route", {"protocol": "80"}),
    ("delete_foreign_route", {"protocol": "2"}),
    ("delete_foreign_route", {"type": "local"}),
    ("delete_foreign_route", {"type": "blackhole"}),
    ("delete_foreign_route", {"metric": "-1"}),
]


@pytest.mark.parametrize(("name", "changes"), JUNK)
def test_words_that_are_not_of_their_form_reach_no_kernel(name: str, changes: dict[str, str]) -> None:
    kind = of_kind(name)
    for step in (kind.holds, kind.preview, kind.execute, kind.verify):
        with pytest.raises(ValueError, match=r" is not | is a multicast|does not appear|has host bits"):
            step(Nobody(), {**GOOD[name], **changes})


LATER = ("peer", "version", "seen_at", "again_after_s")  # told to people, or asked for when the kernel was looked at


@pytest.mark.parametrize(
    ("name", "left_out"), [(name, word) for name in GOOD for word in GOOD[name] if word not in LATER]
)
def test_a_word_that_is_left_out_is_missed(name: str, left_out: str) -> None:
    kind, words = of_kind(name), {word: value for word, value in GOOD[name].items() if word != left_out}
    with pytest.raises(ValueError, match=r" is not | does not appear"):
        kind.holds(Nobody(), words)


class Nobody(Kernel):
    """A kernel that nobody may ask."""

    def __getattribute__(self, name: str) -> Any:
        def asked(*_: object) -> None:
            raise AssertionError(f"{name} was asked of the kernel")

        return asked


@pytest.mark.parametrize("name", GOOD)
def test_the_right_words_do_reach_it(name: str) -> None:
    with pytest.raises(AssertionError, match="was asked of the kernel"):
        of_kind(name).holds(Nobody(), GOOD[name])
