"""Where our own packets are met on a real wire: a stage called good that no packet reached would mislead for hours."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from facts import Fact, LocalPod, NodeAsk, StageSighting, Trace, Train, encode
from facts.fact import decode
from lab.client import Lab
from lab.wire import drop_some_udp
from node_probe.answer import Prober
from node_probe.stages import Stages
from node_probe.tap import Tap
from tests.asking import ask as ask_lab
from tests.asking import words_for
from tests.namespaces import in_namespaces
from tests.test_firewall_trace import FLOOD, PORT, answers, follow, needs, ping_of_ours
from tests.two_nodes import (
    BLOCK,
    CART,
    CART6,
    CART_INTERFACE,
    DB,
    DB6,
    DB_INTERFACE,
    MAC,
    MAC6,
    NODE,
    NODE6,
    PERMANENT,
    TUNNEL,
    TUNNEL6,
    TwoNodes,
    ask,
    echo,
    from_cart,
)

NOWHERE = "172.30.0.99"


def asked(node: str, protocol: str = "icmp", port: int = 0, *, six: bool = False) -> NodeAsk:
    """As the bot asks it: both ends look into their pod."""
    pods = {
        "a": LocalPod(name="shop/cart", address=CART6 if six else CART, interface=CART_INTERFACE),
        "b": LocalPod(name="shop/db", address=DB6 if six else DB, interface=DB_INTERFACE),
    }
    return msgspec.structs.replace(follow(node, protocol, port, six=six), local_pods=(pods[node],))


def places(facts: Sequence[Fact], *, reply: bool = False) -> list[tuple[str, str, str, str, str, int]]:
    """(node, pod, device, going, encapsulation, packets) of all that was met, the sender's node first."""
    met = [one for one in facts if isinstance(one, StageSighting) and one.reply == reply and one.seen > 0]
    first = "node-b" if reply else "node-a"
    met.sort(key=lambda one: one.node != first)
    return [(one.node, one.pod, one.device, one.going, one.encapsulation, one.seen) for one in met]


def whole_way(tunnel: str) -> list[tuple[str, str, str, str, str, int]]:
    return [
        ("node-a", "shop/cart", "eth0", "out", "", 2),
        ("node-a", "", CART_INTERFACE, "in", "", 2),
        ("node-a", "", tunnel, "out", "", 2),
        ("node-a", "", "eth0", "out", "vxlan", 2),
        ("node-b", "", "eth0", "in", "vxlan", 2),
        ("node-b", "", tunnel, "in", "", 2),
        ("node-b", "", DB_INTERFACE, "out", "", 2),
        ("node-b", "shop/db", "eth0", "in", "", 2),
    ]


def opposite(place: tuple[str, str, str, str, str, int]) -> tuple[str, str, str, str, str, int]:
    node, pod, device, going, encapsulation, packets = place
    return node, pod, device, {"in": "out", "out": "in"}[going], encapsulation, packets


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("protocol", ["icmp", "tcp", "udp"])
@in_namespaces
def test_packets_are_met_at_every_device_of_both_nodes_and_in_both_pods_both_ways(protocol: str, six: bool) -> None:
    nodes = TwoNodes(dual=six)
    port = 0 if protocol == "icmp" else PORT
    if port:
        echo(nodes.db, port, "::" if six else "0.0.0.0")
    facts = answers(nodes, asked("a", protocol, port, six=six), asked("b", protocol, port, six=six))
    tunnel = TUNNEL6 if six else TUNNEL
    assert sorted(places(facts)) == sorted(whole_way(tunnel))
    assert sorted(places(facts, reply=True)) == sorted(map(opposite, whole_way(tunnel)))
    sighted = [one for one in facts if isinstance(one, StageSighting)]
    around = [one for one in sighted if one.encapsulation and not one.reply]
    names = (NODE6, MAC6) if six else (NODE, MAC)
    assert {(one.outer_source, one.outer_target, one.inner_mac) for one in around} == {
        (names[0]["a"], names[0]["b"], names[1]["b"])
    }
    assert {(one.port, one.vni) for one in around} == {(4789, 4096)}
    assert all(one.enclosed and not one.others for one in sighted)
    assert {one.listened for one in sighted if one.node == "node-a"} == {True}
    assert decode(encode(sighted)) == sighted


@in_namespaces
def test_where_none_is_met_that_is_said_of_each_place_that_was_looked_at() -> None:
    nodes = TwoNodes()
    index = nodes.index("cart", "eth0")
    nodes.at("cart", lambda ip: ip.link("set", index=index, state="down"))
    facts = answers(nodes, asked("a"), asked("b"))
    nothing = [(one.node, one.pod, one.reply, one.seen, one.device) for one in facts if isinstance(one, StageSighting)]
    assert sorted(nothing) == sorted(
        (node, pod, reply, 0, "")
        for node, pods in (("node-a", ("", "shop/cart")), ("node-b", ("", "shop/db")))
        for pod in pods
        for reply in (False, True)
    )


@in_namespaces
def test_where_nobody_may_look_it_is_not_said_that_none_was_met() -> None:
    TwoNodes()
    gone = LocalPod(name="shop/cart", address=CART, interface="cali000000gone")
    facts = asyncio.run(alone(msgspec.structs.replace(asked("a"), local_pods=(gone,))))
    sighted = {(one.pod, one.reply): one.seen for one in facts if isinstance(one, StageSighting)}
    assert sighted == {("", False): 0, ("", True): 0, ("shop/cart", False): -1, ("shop/cart", True): -1}


async def alone(one: NodeAsk) -> list[Fact]:
    prober = Prober(one.node, {})
    try:
        return await prober.answer(one, time.monotonic() + 2)
    finally:
        await prober.close()


def packet_sockets() -> int:
    return len(Path("/proc/thread-self/net/packet").read_text().splitlines()) - 1


@in_namespaces
def test_no_socket_is_left_when_the_question_is_answered_or_broken_off() -> None:
    nodes = TwoNodes()

    async def broken_off() -> None:
        prober = Prober("node-a", {})
        task = asyncio.create_task(prober.answer(asked("a"), time.monotonic() + 10))
        until = time.monotonic() + 5
        while nodes.cart.run(packet_sockets) == 0:
            assert time.monotonic() < until, "nobody looks into the pod"
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await prober.close()

    asyncio.run(alone(asked("a")))
    assert (packet_sockets(), nodes.cart.run(packet_sockets)) == (0, 0)
    asyncio.run(broken_off())
    assert (packet_sockets(), nodes.cart.run(packet_sockets)) == (0, 0)


@in_namespaces
def test_a_wrong_inner_mac_and_a_wrong_node_are_seen_in_the_tunnels_header() -> None:
    nodes = TwoNodes()
    index = nodes.index("a", TUNNEL)
    wrong = "66:00:00:00:00:99"

    def wound(ip: Any) -> None:
        ip.neigh("replace", dst=BLOCK["b"], lladdr=wrong, ifindex=index, state=PERMANENT)
        ip.fdb("append", ifindex=index, lladdr=wrong, dst=NODE["b"], state=PERMANENT)

    def astray(ip: Any) -> None:
        ip.neigh("replace", dst=BLOCK["b"], lladdr=MAC["b"], ifindex=index, state=PERMANENT)
        ip.fdb("del", ifindex=index, lladdr=MAC["b"], dst=NODE["b"], state=PERMANENT)
        ip.fdb("append", ifindex=index, lladdr=MAC["b"], dst=NOWHERE, state=PERMANENT)
        ip.neigh("replace", dst=NOWHERE, lladdr="02:00:00:00:00:99", ifindex=nodes.index("a", "eth0"), state=PERMANENT)

    nodes.at("a", wound)
    facts = answers(nodes, asked("a"), asked("b"))
    assert [place[:5] for place in places(facts)][-1] == ("node-b", "", TUNNEL, "in", "")
    sighted = [one for one in facts if isinstance(one, StageSighting) and one.seen > 0]
    assert {one.inner_mac for one in sighted if one.encapsulation} == {wrong}
    assert [one.others for one in sighted if (one.node, one.device) == ("node-b", TUNNEL)] == [True]
    nodes.at("a", astray)
    facts = answers(nodes, asked("a"), asked("b"))
    sighted = [one for one in facts if isinstance(one, StageSighting) and one.encapsulation and one.going == "out"]
    assert [(one.outer_target, one.seen) for one in sighted] == [(NOWHERE, 2)]


@needs("nft")
@in_namespaces
def test_packets_that_leave_without_their_tunnel_are_seen_on_the_card() -> None:
    nodes = TwoNodes()
    uplink = nodes.index("a", "eth0")

    def wound(ip: Any) -> None:
        ip.neigh("replace", dst="172.30.0.1", lladdr="02:00:00:00:00:99", ifindex=uplink, state=PERMANENT)
        ip.route("del", dst=f"{BLOCK['b']}/26", proto=80)

    nodes.at("a", wound)
    facts = answers(nodes, asked("a"), asked("b"))
    assert [place[1:5] for place in places(facts)] == [
        ("", CART_INTERFACE, "in", ""), ("", "eth0", "out", ""), ("shop/cart", "eth0", "out", ""),
        ("", "eth0", "in", ""),
    ]  # fmt: skip
    arrived = [one.others for one in facts if isinstance(one, StageSighting) and one.node == "node-b" and one.seen > 0]
    assert arrived == [True], "its frames are for nobody's MAC"


@in_namespaces
def test_a_packet_within_ipip_is_known_again_by_what_is_in_it() -> None:
    """The device is not needed for that: on the wire it is a packet in a packet."""
    nodes = TwoNodes()
    one = Trace(source=CART, target=DB, protocol="icmp", encapsulation="ipip", peer=NODE["a"])
    looking = ask(node="node-b", ways=(), local_pods=(), read=False, trace=(one,), watch=asked("b").watch)
    facts: list[Fact] = []
    thread = threading.Thread(target=lambda: facts.extend(nodes.b.run(lambda: asyncio.run(alone(looking)))))
    thread.start()
    until = time.monotonic() + 5
    # Of one leg: its packets as they are and within IPIP, and four of the tap.
    while nodes.b.run(packet_sockets) < 5:
        assert time.monotonic() < until
        time.sleep(0.005)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 4) as wire:
        wire.sendto(ping_of_ours(), (NODE["b"], 0))
        wire.sendto(ping_of_ours().replace(socket.inet_aton(CART), bytes(4)), (NODE["b"], 0))  # somebody else's
    thread.join()
    assert places(facts) == [("node-b", "", "eth0", "in", "ipip", 1)]


@in_namespaces
def test_a_flood_between_the_same_pods_neither_hides_nor_adds_a_packet() -> None:
    nodes = TwoNodes()
    flood = nodes.cart.run(
        lambda: subprocess.Popen([sys.executable, "-c", FLOOD, DB], stdout=subprocess.PIPE, text=True)
    )
    try:
        assert flood.stdout is not None and flood.stdout.readline() == "flooding\n"
        facts = answers(nodes, asked("a"), asked("b"))
    finally:
        flood.kill()
        flood.wait()
    assert sorted(places(facts)) == sorted(whole_way(TUNNEL))


@needs("nft")
@in_namespaces
def test_the_packets_of_trains_are_counted_where_they_are_met_and_no_others_with_them() -> None:
    """Also while connections are opened between the same pods to the same port."""
    nodes = TwoNodes()
    echo(nodes.db, PORT)
    nodes.b.run(lambda: drop_some_udp("eth0", 4789, 3))  # behind the look at the card, before the tunnel
    asks = [
        msgspec.structs.replace(one, trace=tuple(msgspec.structs.replace(each, train=True) for each in one.trace))
        for one in (asked("a", "tcp", PORT), asked("b", "tcp", PORT))
    ]
    trains = from_cart("tcp", port=PORT, count=30, every_ms=2)
    asks[0] = msgspec.structs.replace(asks[0], send=(trains, from_cart("tcp", port=PORT, count=20)))
    facts = answers(nodes, *asks)
    (train,) = [one for one in facts if isinstance(one, Train)]
    sent, lost = train.sent + train.sent_again + train.retried, train.lost + train.retried - train.retried_back
    assert lost >= 10
    met = {place[:5]: place[5] for place in places(facts)}
    before = [("node-a", "shop/cart", "eth0", "out", ""), ("node-a", "", CART_INTERFACE, "in", ""),
              ("node-a", "", TUNNEL, "out", ""), ("node-a", "", "eth0", "out", "vxlan"),
              ("node-b", "", "eth0", "in", "vxlan")]  # fmt: skip
    assert {place: met[place] for place in before} == dict.fromkeys(before, sent)
    behind = (
        ("node-b", "", TUNNEL, "in", ""),
        ("node-b", "", DB_INTERFACE, "out", ""),
        ("node-b", "shop/db", "eth0", "in", ""),
    )
    assert {place: met[place] for place in behind} == dict.fromkeys(behind, sent - lost)
    assert {place[5] for place in places(facts, reply=True)} == {sent - lost}


@in_namespaces
def test_old_answers_that_a_server_repeats_are_none_to_todays_packets() -> None:
    """What was answered and lost a minute ago is sent again and again, and would look like a way that works."""
    nodes = TwoNodes()
    echo(nodes.db, PORT)
    nodes.b.run(lambda: card("ingress", DB_INTERFACE, f"tcp sport {PORT} drop"))
    assert ("node-b", "", DB_INTERFACE, "in", "", 2) in places(
        answers(nodes, asked("a", "tcp", PORT), asked("b", "tcp", PORT)), reply=True
    )
    repeats = Trace(source=DB, target=CART, protocol="tcp", port=PORT, reply=True)
    asks = Trace(source=CART, target=DB, protocol="tcp", port=PORT)
    db = LocalPod(name="shop/db", address=DB, interface=DB_INTERFACE)
    both = ask(node="node-b", ways=(), read=False, local_pods=(db,), trace=(asks, repeats), watch=asked("b").watch)
    # Looks on for two seconds, in which the kernel repeats its SYN-ACK: without the question it belongs to it counts.
    facts = nodes.b.run(lambda: asyncio.run(alone(msgspec.structs.replace(both, trace=(repeats,)))))
    assert places(facts, reply=True) != []
    facts = nodes.b.run(lambda: asyncio.run(alone(both)))
    assert places(facts, reply=True) == []


def ruleset(hook: str, device: str, rule: str) -> str:
    """Loses packets at a device, where no hook of a firewall sees them."""
    return f"table netdev corp {{ chain c {{ type filter hook {hook} device {device} priority 0; {rule}\n}}\n}}\n"


def card(hook: str, device: str, rule: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=ruleset(hook, device, rule), text=True, check=True)


@needs("nft")
@pytest.mark.parametrize("lost", [False, True], ids=["arrives", "lost"])
@in_namespaces
def test_it_is_known_soon_after_the_packets_were_sent(lost: bool) -> None:
    """The time is printed (pytest -s) and not asserted: a busy machine has its own."""
    nodes = TwoNodes()
    if lost:
        nodes.b.run(lambda: card("ingress", "eth0", "udp dport 4789 drop"))
    moments: list[float] = []
    begin, sightings = Tap.begin, Stages.sightings

    async def began(self: Tap, deadline: float) -> None:
        await begin(self, deadline)
        moments.append(time.monotonic())

    def told(self: Stages, tap: Tap) -> list[Fact]:
        facts = sightings(self, tap)
        moments.append(time.monotonic())
        return facts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tap, "begin", began)  # only node a sends
        patch.setattr(Stages, "sightings", told)
        facts = answers(nodes, asked("a"), asked("b"))
    took_ms = (max(moments) - min(moments)) * 1000
    print(
        f"\npackets that {'are lost' if lost else 'arrive'}: known on both nodes {took_ms:.1f} ms after they were sent"
    )
    met = [place[:4] for place in places(facts)]
    assert (("node-b", "", "eth0", "in") in met, ("node-b", "", TUNNEL, "in") in met) == (True, not lost)


# -- the whole way: bot, both probes, engine

# Another checksum of the IP header: no rule drops such a packet, and the kernel does without a word.
SPOILED = "@nh,80,16 set 0xdead"
LOSSES = {  # (place, hook, device, rule, leg, last good stage, first bad one)
    "behind the pod's veth": (
        "node-a", "ingress", "CART", f"tcp dport 5432 {SPOILED}", "forward", "source veth", "source node",
    ),
    "where the target's node takes them in": (
        "node-b", "ingress", "eth0", f"udp dport 4789 {SPOILED}", "forward", "underlay", "target tunnel",
    ),
    "behind the target's tunnel": (
        "node-b", "ingress", "vxlan.calico", f"tcp dport 5432 {SPOILED}", "forward", "target tunnel", "target node",
    ),
    "within the target's pod": (
        "shop/db", "ingress", "eth0", f"tcp dport 5432 {SPOILED}", "forward", "target veth", "target pod",
    ),
    "the answer, behind the pod's veth": (
        "node-b", "ingress", "DB", f"tcp sport 5432 {SPOILED}", "reverse", "source veth", "source node",
    ),
    "the answer, behind the tunnel it came by": (
        "node-a", "ingress", "vxlan.calico", f"tcp sport 5432 {SPOILED}", "reverse", "target tunnel", "target node",
    ),
}  # fmt: skip


@needs("nft")
@pytest.mark.parametrize("loss", LOSSES)
async def test_a_loss_nobody_can_explain_is_placed_by_what_was_seen(lab: Lab, loss: str) -> None:
    place, hook, device, rule, way, last, bad = LOSSES[loss]
    interfaces = {one["name"]: one["interface"] for one in lab.status()["pods"]}
    device = {"CART": interfaces["shop/cart"], "DB": interfaces["shop/db"]}.get(device, device)
    done = lab.exec(place, "nft", "-f", "-", input=ruleset(hook, device, rule))
    assert done.returncode == 0, done.stderr
    try:
        diagnosis = (await ask_lab(lab.environment(), "shop/cart shop/db 5432/tcp")).diagnosis
    finally:
        lab.exec(place, "nft", "delete", "table", "netdev", "corp")
    assert diagnosis.verdict == "unknown" and diagnosis.causes == ()
    legs = {leg.direction: leg for leg in diagnosis.path}
    leg = legs[way]
    assert (leg.last_good, leg.first_bad) == (last, bad)
    states = [hop.state for hop in leg.hops]
    good = next(number for number, hop in enumerate(leg.hops) if hop.stage == bad)
    assert states == ["ok"] * good + ["bad"] + ["unknown"] * (len(states) - good - 1)
    assert leg.lost and leg.lost in diagnosis.summary
    other = legs[{"forward": "reverse", "reverse": "forward"}[way]]
    assert {hop.state for hop in other.hops} == {"ok" if way == "reverse" else "unknown"}


CAUSES = {  # fault -> (last good stage, first bad one, what is seen of the packet)
    "pod_interface_down": ("", "source veth", "No packet from shop/cart to shop/db was seen leaving eth0"),
    "fdb_entry_missing": ("source node", "source tunnel", "never leaving node-a inside the tunnel"),
    "fdb_entry_wrong_node": ("source node", "source tunnel", "which is node-c and not node-b"),
    "route_missing": ("source veth", "source node", "it left node-a by eth0 without the tunnel"),
    "underlay_drops_vxlan": ("source tunnel", "underlay", "and never reaching node-b"),
    "vxlan_vni_wrong": ("source node", "source tunnel", "its VNI is 4097 and should be 4096"),
    "policy_denies_ingress": ("target tunnel", "target veth", "and never going out by"),
}


@pytest.mark.parametrize("fault", CAUSES)
async def test_what_was_seen_agrees_with_the_cause(lab: Lab, fault: str) -> None:
    last, bad, said = CAUSES[fault]
    told = lab.inflict(fault)
    diagnosis = (await ask_lab(lab.environment(), words_for(told))).diagnosis
    assert [cause.rule for cause in diagnosis.causes] == [fault]
    leg = next(leg for leg in diagnosis.path if leg.direction == "forward")
    assert (leg.last_good, leg.first_bad) == (last, bad)
    assert said in leg.lost
    passed = [hop.stage for hop in leg.hops if hop.state == "ok"]
    assert all(hop.met != 0 for hop in leg.hops if hop.stage in passed)
