"""What two probes see of the packets between their nodes, on a good path and where they are swallowed on the way."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from typing import Any

import pytest

from facts import Blind, Fact, NodeAsk, ProbeResult, SendProbe, Sighting, Trace, Watch
from lab.wire import drop_to, drop_udp, set_checksum_offload
from node_probe import tap
from node_probe.answer import Prober
from node_probe.checksum import checksum as internet_checksum
from node_probe.checksum import spoilt
from tests.namespaces import in_namespaces
from tests.two_nodes import (
    CART,
    CART6,
    DB,
    DB6,
    NODE,
    NODE6,
    PERMANENT,
    TUNNEL,
    TwoNodes,
    ask,
    from_cart,
)

OTHER = {"a": "b", "b": "a"}


def watches(node: str, *, encapsulation: str = "vxlan", port: int = 4789, six: bool = False) -> tuple[Watch, ...]:
    """Both legs between shop/cart on a and shop/db on b, as this node is to watch them."""
    pods = {"a": CART6 if six else CART, "b": DB6 if six else DB}
    peer = (NODE6 if six else NODE)[OTHER[node]]
    mine, theirs = pods[node], pods[OTHER[node]]
    common: dict[str, Any] = {"encapsulation": encapsulation, "peer": peer, "port": port}
    return (
        Watch(way="out", source=mine, target=theirs, **common),
        Watch(way="in", source=theirs, target=mine, **common),
    )


def ask_of(node: str, *send: SendProbe, six: bool = False, **changes: Any) -> NodeAsk:
    fields: dict[str, Any] = {
        "node": f"node-{node}",
        "uplink_address": (NODE6 if six else NODE)[node],
        "ways": (),
        "send": send,
        "watch": watches(node, six=six),
    }
    if node == "b":
        fields["local_pods"] = ()
    return ask(**(fields | changes))


def answers(nodes: TwoNodes, a: NodeAsk, b: NodeAsk, *, seconds: float = 3.0, b_later_s: float = 0.0) -> list[Fact]:
    """Both probes asked at the same time, or b's a little later."""

    async def answer(one: NodeAsk) -> list[Fact]:
        prober = Prober(one.node, {})
        try:
            return await prober.answer(one, time.monotonic() + seconds)
        finally:
            await prober.close()

    there: list[Fact] = []

    def at_b() -> None:
        time.sleep(b_later_s)
        there.extend(nodes.b.run(lambda: asyncio.run(answer(b))))

    thread = threading.Thread(target=at_b)
    thread.start()
    here = asyncio.run(answer(a))
    thread.join()
    return here + there


def sighting(facts: list[Fact], node: str, way: str) -> Sighting:
    found = [f for f in facts if isinstance(f, Sighting) and (f.node, f.way) == (f"node-{node}", way)]
    assert len(found) == 1, facts
    return found[0]


@in_namespaces
def test_packets_are_seen_where_they_leave_and_where_they_arrive() -> None:
    nodes = TwoNodes()
    began = time.monotonic()
    facts = answers(nodes, ask_of("a", from_cart("icmp")), ask_of("b"))
    assert time.monotonic() - began < 1.5, "a healthy path must not cost the whole deadline"
    left, arrived = sighting(facts, "a", "out"), sighting(facts, "b", "in")
    assert left.seen == 2 and arrived.seen == 2
    assert (left.device, left.outer_target, arrived.device) == ("eth0", NODE["b"], "eth0")
    assert arrived.heard and arrived.enclosed and arrived.bad_checksums == 0
    assert not (left.heard or left.enclosed)  # the answers of b's kernel to a's own marks are no word of b's probe
    # The answers do come back, and are no probes of b's.
    assert (sighting(facts, "b", "out").seen, sighting(facts, "a", "in").seen) == (0, 2)


@in_namespaces
def test_the_same_over_ipv6() -> None:
    nodes = TwoNodes(dual=True)
    facts = answers(nodes, ask_of("a", from_cart("icmp", DB6), six=True, family=6), ask_of("b", six=True, family=6))
    left, arrived = sighting(facts, "a", "out"), sighting(facts, "b", "in")
    assert left.seen == 2 and arrived.seen == 2
    assert (left.outer_target, arrived.heard, arrived.enclosed) == (NODE6["b"], True, True)


@in_namespaces
def test_what_a_nodes_own_firewall_drops_did_arrive() -> None:
    """Else the network between the nodes would be accused of it."""
    nodes = TwoNodes()
    nodes.b.run(lambda: drop_udp("eth0", 4789))
    facts = answers(nodes, ask_of("a", from_cart("icmp")), ask_of("b"))
    assert [f.answered for f in facts if isinstance(f, ProbeResult)] == [0]
    assert sighting(facts, "b", "in").seen == 2


@in_namespaces
def test_packets_that_leave_and_never_arrive_are_told_by_who_looked_on_all_the_time() -> None:
    """They are sent to nobody's port in b's eyes: another VXLAN port stands for a network that swallows them."""
    nodes = TwoNodes()
    listens = ask_of("b", watch=watches("b", port=4790))
    facts = answers(nodes, ask_of("a", from_cart("icmp")), listens)
    assert sighting(facts, "a", "out").seen == 2
    arrived = sighting(facts, "b", "in")
    assert (arrived.seen, arrived.heard, arrived.enclosed) == (0, True, True)


@in_namespaces
def test_a_peer_that_is_asked_a_little_later_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "READY_S", 8.0)  # a busy machine takes longer to listen, too
    nodes = TwoNodes()
    facts = answers(nodes, ask_of("a", from_cart("icmp")), ask_of("b"), b_later_s=0.15, seconds=10.0)
    arrived = sighting(facts, "b", "in")
    assert (arrived.seen, arrived.begun, arrived.enclosed) == (2, True, True), facts


@in_namespaces
def test_an_end_that_was_read_before_the_packets_does_not_make_them_missing() -> None:
    """The loop of a busy probe comes to its sockets in any order; else the network would be accused."""
    nodes = TwoNodes()
    peer = tap.Tap(ask_of("b"))

    def ping() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as one:
            one.settimeout(10)
            blank = struct.pack("!BBHHH", 8, 0, 0, 9, 9)
            one.sendto(struct.pack("!BBHHH", 8, 0, internet_checksum(blank), 9, 9), (CART, 0))
            one.recv(100)  # answered: it has passed node a

    async def look() -> list[Fact]:
        """Without a turn of the loop."""
        mine = tap.Tap(ask_of("a"))
        mine.open()
        nodes.b.run(lambda: peer._tell("out", tap.BEGIN))
        nodes.db.run(ping)
        nodes.b.run(lambda: peer._tell("out", tap.END))
        marks = [(one, met) for one, met in mine._sockets.items() if getattr(met, "func", None) == mine._mark]
        until = time.monotonic() + 10
        while not any(seen.ended for seen in mine._seen) and time.monotonic() < until:
            for one, met in marks:
                mine._drain(one, met)
        found = mine.sightings()
        mine.close()
        return found

    arrived = sighting(asyncio.run(look()), "a", "in")
    assert (arrived.seen, arrived.enclosed) == (1, True)


@in_namespaces
def test_only_the_mark_of_the_same_question_says_that_all_of_its_packets_were_sent() -> None:
    """Another one about the same pods may end while this one's packets are still to come."""
    nodes = TwoNodes()
    mark = "00c0ffee00c0ffee"

    async def look(peer: tap.Tap) -> tuple[bool, bool]:
        mine = tap.Tap(ask_of("a", mark=mark))
        mine.open()
        nodes.b.run(lambda: peer._tell("out", tap.BEGIN))
        nodes.b.run(lambda: peer._tell("out", tap.END))
        await mine.look(time.monotonic() + 10)
        mine.close()
        return any(seen.ended for seen in mine._seen), mine.all_sent()

    assert asyncio.run(look(tap.Tap(ask_of("b", mark=mark)))) == (True, True)
    assert asyncio.run(look(tap.Tap(ask_of("b", mark="00c0ffee00c0ffef")))) == (True, False)
    assert asyncio.run(look(tap.Tap(ask_of("b")))) == (True, False), "its bot is of a version without"


@in_namespaces
def test_who_counts_the_packets_of_trains_looks_until_the_end_of_the_same_question() -> None:
    """Two people ask the same at once: else this node would have seen few of many, and the network would be accused."""
    nodes = TwoNodes()
    mark, other = "00c0ffee00c0ffee", "00c0ffee00c0ffef"
    train = Trace(source=DB, target=CART, protocol="tcp", port=5432, train=True)

    async def look(marked: str, seconds: float) -> tuple[float, bool]:
        mine, began = tap.Tap(ask_of("a", mark=mark, trace=(train,))), time.monotonic()
        mine.open()
        peer = tap.Tap(ask_of("b", mark=marked))
        nodes.b.run(lambda: peer._tell("out", tap.BEGIN))
        nodes.b.run(lambda: peer._tell("out", tap.END))
        await mine.look(began + seconds)
        mine.close()
        return time.monotonic() - began, mine.met(DB, CART)[0]

    took, enclosed = asyncio.run(look(mark, 60))
    assert took < 30 and enclosed
    took, enclosed = asyncio.run(look(other, 1))
    assert took > 0.8 and not enclosed


@in_namespaces
def test_a_peer_that_is_not_heard_at_all_does_not_cost_the_whole_deadline() -> None:
    """Where the network is dead an answer would otherwise take as long as one that never comes."""
    nodes = TwoNodes()
    deadline = 60.0

    async def look(begins: bool) -> tuple[float, bool]:
        began = time.monotonic()
        mine = tap.Tap(ask_of("a", patience_ms=200))
        mine.open()
        if begins:
            nodes.b.run(lambda: tap.Tap(ask_of("b"))._tell("out", tap.BEGIN))
        await mine.look(began + (2.5 if begins else deadline))
        mine.close()
        return time.monotonic() - began, mine.all_sent()

    took, all_sent = asyncio.run(look(begins=False))
    assert 1.0 <= took < deadline / 2 and all_sent
    took, all_sent = asyncio.run(look(begins=True))
    assert took >= 2.4 and not all_sent, "it was heard that packets follow"


def wrapped(tcp_checksum: int) -> bytes:
    """A bare SYN from shop/cart to shop/db as VXLAN carries it."""
    tcp = struct.pack("!HHIIBBHHH", 40000, 8080, 1, 0, 5 << 4, 2, 64240, tcp_checksum, 0)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 1, 0, 64, 6, 0, socket.inet_aton(CART), socket.inet_aton(DB))
    return bytes.fromhex("0800000000100000") + bytes(12) + b"\x08\x00" + ip + tcp


@in_namespaces
def test_spoilt_checksums_are_seen_where_they_arrive() -> None:
    nodes = TwoNodes()
    set_checksum_offload("eth0", False)  # else a packet that never was on a wire carries none

    async def look() -> list[Fact]:
        looking = tap.Tap(ask_of("b"))
        looking.open()
        listening.set()
        try:
            await asyncio.to_thread(sent.wait)
            await looking.look(time.monotonic() + 2)
            return looking.sightings()
        finally:
            looking.close()

    def run(facts: list[Fact]) -> None:
        facts.extend(nodes.b.run(lambda: asyncio.run(look())))

    right = next(sum_ for sum_ in range(1 << 16) if not spoilt(wrapped(sum_)[22:]))
    for checksum, bad in ((right, 0), (0xDEAD, 1)):
        listening, sent = threading.Event(), threading.Event()
        facts: list[Fact] = []
        thread = threading.Thread(target=run, args=(facts,))
        thread.start()
        listening.wait()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.sendto(wrapped(checksum), (NODE["b"], 4789))
        sent.set()
        thread.join()
        assert (sighting(facts, "b", "in").seen, sighting(facts, "b", "in").bad_checksums) == (1, bad)


@in_namespaces
def test_who_only_asks_for_neighbors_is_not_heard() -> None:
    """As ARP, that passes between nodes that carry nothing else for each other."""
    nodes = TwoNodes(dual=True)
    mac = nodes.at("b", lambda ip: ip.get_links(nodes.index("b", "eth0"))[0].get_attr("IFLA_ADDRESS"))
    known = {"dst": NODE6["b"], "lladdr": mac, "ifindex": nodes.index("a", "eth0"), "state": PERMANENT}
    nodes.at("a", lambda ip: ip.neigh("replace", family=socket.AF_INET6, **known))
    drop_to("eth0", NODE6["a"])  # else it answers the other one's marks

    async def look() -> list[Fact]:
        looking = tap.Tap(ask_of("b", six=True))
        looking.open()
        listening.set()
        try:
            await asyncio.to_thread(sent.wait)
            await asyncio.sleep(0)
            await looking.look(time.monotonic() + 0.5)
            return looking.sightings()
        finally:
            looking.close()

    def run(facts: list[Fact]) -> None:
        facts.extend(nodes.b.run(lambda: asyncio.run(look())))

    def ask_for(kind: int) -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as one:
            one.bind((NODE6["a"], 0))
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
            one.sendto(
                bytes([kind, 0, 0, 0, 0, 0, 0, 0]) + socket.inet_pton(socket.AF_INET6, NODE6["b"]), (NODE6["b"], 0)
            )

    for kinds, heard in (((135, 136), False), ((135, 128), True)):
        listening, sent = threading.Event(), threading.Event()
        facts: list[Fact] = []
        thread = threading.Thread(target=run, args=(facts,))
        thread.start()
        listening.wait()
        for kind in kinds:
            ask_for(kind)
        sent.set()
        thread.join()
        assert sighting(facts, "b", "in").heard == heard


@in_namespaces
def test_a_probe_that_listens_too_late_does_not_say_that_it_saw_everything() -> None:
    nodes = TwoNodes()
    facts = answers(nodes, ask_of("a", from_cart("icmp")), ask_of("b"), b_later_s=1.0)
    arrived = sighting(facts, "b", "in")
    assert (arrived.seen, arrived.enclosed) == (0, False)
    assert 1500 < arrived.looked_ms < 3500, "until its own deadline, for it met nothing"
    assert not arrived.begun


@in_namespaces
def test_packets_that_leave_beside_their_tunnel_are_astray() -> None:
    nodes = TwoNodes()
    facts = answers(nodes, ask_of("a", from_cart("icmp")), ask_of("b"))
    assert sighting(facts, "a", "out").astray == ""

    def divert(ip: Any) -> None:
        ip.route("add", dst=f"{DB}/32", gateway=NODE["b"], oif=ip.link_lookup(ifname="eth0")[0])

    nodes.at("a", divert)
    facts = answers(nodes, ask_of("a", from_cart("icmp")), ask_of("b"))
    assert (sighting(facts, "a", "out").seen, sighting(facts, "a", "out").astray) == (0, "eth0")


@in_namespaces
def test_packets_without_a_tunnel_are_told_from_those_in_one() -> None:
    nodes = TwoNodes()
    direct = ask_of("a", from_cart("icmp"), watch=watches("a", encapsulation="direct"))
    facts = answers(nodes, direct, ask_of("b", watch=watches("b", encapsulation="direct")))
    # They go through the tunnel device unwrapped, and over the wire wrapped.
    assert (sighting(facts, "a", "out").device, sighting(facts, "b", "in").device) == (TUNNEL, TUNNEL)
    facts = answers(
        nodes,
        ask_of("a", from_cart("icmp"), watch=watches("a", encapsulation="ipip")),
        ask_of("b", watch=watches("b", encapsulation="ipip")),
    )
    assert sighting(facts, "a", "out").seen == sighting(facts, "b", "in").seen == 0


UNKNOWN = Watch(way="in", encapsulation="geneve", source=DB, target=CART, peer=NODE["b"])
MANY = tuple(
    Watch(way="in", encapsulation="ipip", source=DB, target=f"10.244.1.{n}", peer=NODE["b"]) for n in range(33)
)


@pytest.mark.parametrize("watched", [(UNKNOWN,), MANY], ids=["unknown", "many"])
@in_namespaces
def test_a_probe_that_does_not_look_says_so_and_claims_nothing(watched: tuple[Watch, ...]) -> None:
    TwoNodes()

    async def answer() -> list[Fact]:
        prober = Prober("node-a", {})
        try:
            return await prober.answer(ask_of("a", watch=watched), time.monotonic() + 1)
        finally:
            await prober.close()

    facts = asyncio.run(answer())
    assert {f.seen for f in facts if isinstance(f, Sighting)} == {-1}
    assert [(f.look, f.minor) for f in facts if isinstance(f, Blind)] == [("tap", True)]
