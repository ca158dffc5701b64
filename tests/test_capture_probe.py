"""What a node's probe captures of a flow: in every place, nothing else, no payload, within its bounds."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from facts import LocalPod
from facts.capture import (
    CAPTURE_PACKETS,
    CaptureAsk,
    CaptureBegan,
    CapturedPacket,
    CaptureEnd,
    CaptureLine,
    CaptureStage,
)
from node_probe import capture
from node_probe.answer import Prober
from node_probe.capture import CannotCapture, headers_end
from node_probe.filters import packed
from tests.namespaces import in_namespaces
from tests.test_firewall_trace import FLOOD
from tests.two_nodes import (
    CART,
    CART6,
    CART_INTERFACE,
    DB,
    DB6,
    NODE,
    NODE6,
    STRANGER,
    TUNNEL,
    TUNNEL6,
    TwoNodes,
    echo,
)

PORT = 5432
SECRET = b"a password nobody may see"
IN_CART = ("shop/cart", "eth0")
PLACES = [IN_CART, ("", CART_INTERFACE), ("", TUNNEL), ("", "eth0")]


def ask(**changes: Any) -> CaptureAsk:
    fields: dict[str, Any] = {
        "node": "node-a",
        "pairs": ((CART, DB),),
        "pods": (LocalPod(name="shop/cart", address=CART, interface=CART_INTERFACE),),
        "tunnels": (TUNNEL,),
        "uplink_addresses": (NODE["a"],),
        "seconds": 20.0,
    }
    return CaptureAsk(**(fields | changes))


class Taken:
    """The lines of one capture."""

    def __init__(self, lines: Sequence[CaptureLine]) -> None:
        self.lines = lines
        self.stages = {one.number: one for one in lines if isinstance(one, CaptureStage)}
        self.packets = [one for one in lines if isinstance(one, CapturedPacket)]
        self.began = next(one for one in lines if isinstance(one, CaptureBegan))
        self.end = next((one for one in lines if isinstance(one, CaptureEnd)), None)

    def counts(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(leaving, arriving) of each place."""
        found: Counter[tuple[int, bool]] = Counter((one.stage, one.out) for one in self.packets)
        return {
            (one.pod, one.device): (found[number, True], found[number, False]) for number, one in self.stages.items()
        }

    def of(self, pod: str, device: str) -> list[bytes]:
        numbers = [number for number, one in self.stages.items() if (one.pod, one.device) == (pod, device)]
        return [one.data for one in self.packets if one.stage in numbers]


def captured(
    question: CaptureAsk, talk: Callable[[], None], *, enough: Callable[[Taken], bool], unread: bool = False
) -> Taken:
    """`talk` runs once every place is looked at; the asker hangs up when it has ended and `enough` came.

    unread: the probe has no time to read anything before it has ended, as on a busy node.
    """

    async def work() -> Taken:
        prober = Prober(question.node, {})
        lines: list[CaptureLine] = []
        talking: asyncio.Task[None] | None = None
        try:
            async for some in prober.capture(question):
                lines += some
                if isinstance(some[0], CaptureBegan) and unread:
                    talk()
                elif isinstance(some[0], CaptureBegan):
                    talking = asyncio.create_task(asyncio.to_thread(talk))
                if talking and talking.done() and enough(Taken(lines)):
                    break
            if talking:
                await talking
        finally:
            await prober.close()
        return Taken(lines)

    return asyncio.run(work())


def datagrams(nodes: TwoNodes, count: int, *, target: str = DB, port: int = PORT, size: int = len(SECRET)) -> None:
    """From shop/cart, each answered by an echo."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with nodes.cart.run(lambda: socket.socket(family, socket.SOCK_DGRAM)) as one:
        one.settimeout(5)
        for _ in range(count):
            one.sendto((SECRET * (size // len(SECRET) + 1))[:size], (target, port))
            one.recv(65535)


def connection(nodes: TwoNodes, *, target: str = DB) -> None:
    with nodes.cart.run(lambda: socket.create_connection((target, PORT), 5)) as one:
        one.sendall(SECRET)
        assert one.recv(100) == SECRET


@in_namespaces
def test_packets_are_met_in_every_place_of_the_node_each_way() -> None:
    nodes = TwoNodes()
    echo(nodes.db, PORT)
    taken = captured(ask(), lambda: datagrams(nodes, 3), enough=lambda taken: len(taken.packets) >= 24)
    # Seen from a device of the node, what its pod sends comes in.
    ways = {IN_CART: (3, 3), ("", CART_INTERFACE): (3, 3), ("", TUNNEL): (3, 3), ("", "eth0"): (3, 3)}
    assert taken.counts() == ways
    kinds = {(one.pod, one.device): (one.kind, one.of_pod) for one in taken.stages.values()}
    assert kinds == {
        IN_CART: ("pod", ""),
        ("", CART_INTERFACE): ("veth", "shop/cart"),
        ("", TUNNEL): ("tunnel", ""),
        ("", "eth0"): ("uplink", ""),
    }
    times = [one.at_ns for one in taken.packets]
    assert max(times) - min(times) < 20e9 and abs(times[0] - time.time_ns()) < 60e9


@in_namespaces
def test_no_byte_of_a_payload_leaves_the_node_and_every_header_does() -> None:
    nodes = TwoNodes()
    echo(nodes.db, PORT)

    def talk() -> None:
        connection(nodes)
        datagrams(nodes, 1)

    finished = captured(ask(), talk, enough=lambda taken: len(taken.packets) >= 4 * 8)
    for place in PLACES:
        for data in finished.of(*place):
            assert SECRET[:3] not in data, place
    headers = {len(data) for data in finished.of(*IN_CART)}
    assert 14 + 20 + 8 in headers and 14 + 20 + 32 in headers, "a datagram's and a segment's, to the last byte"
    assert {len(data) for data in finished.of("", "eth0")} == {size + 50 for size in headers}, "and the tunnel's around"
    whole = captured(ask(payload=True), talk, enough=lambda taken: len(taken.packets) >= 4 * 8)
    assert all(any(SECRET in data for data in whole.of(*place)) for place in PLACES)
    assert max(one.length for one in finished.packets) == max(len(one.data) for one in whole.packets), (
        "told all the same"
    )


@in_namespaces
def test_other_packets_of_the_same_nodes_are_not_captured() -> None:
    """Another port, another protocol, another pod, the way back to another port."""
    nodes = TwoNodes()
    echo(nodes.db, PORT)
    echo(nodes.db, 8080)

    def talk() -> None:
        datagrams(nodes, 2, port=8080)
        datagrams(nodes, 2)
        with nodes.cart.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as one:
            one.sendto(SECRET, (STRANGER, PORT))
        connection(nodes)

    question = ask(protocol="tcp", port=PORT)
    taken = captured(question, talk, enough=lambda taken: len(taken.of(*IN_CART)) >= 6)
    assert taken.packets
    for one in taken.packets:
        start = 14
        packet = one.data[start:]
        if taken.stages[one.stage].kind == "uplink":
            assert packet[9] == socket.IPPROTO_UDP and packet[22:24] == (4789).to_bytes(2, "big")
            packet = packet[20 + 8 + 8 + 14 :]
        assert packet[9] == socket.IPPROTO_TCP
        assert {packet[12:16], packet[16:20]} == {packed(CART), packed(DB)}
        ports = (int.from_bytes(packet[20:22], "big"), int.from_bytes(packet[22:24], "big"))
        assert ports[1 if packet[12:16] == packed(CART) else 0] == PORT
    assert len({taken.counts()[place][0] for place in (("", TUNNEL), ("", "eth0"))}) == 1


@in_namespaces
def test_icmp_errors_about_the_flow_belong_to_it_and_others_do_not() -> None:
    """What a port that nobody listens on answers; the error about a packet to another port is not asked for."""
    nodes = TwoNodes()

    def talk() -> None:
        with nodes.cart.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as one:
            one.sendto(SECRET, (DB, 8080))
            one.sendto(SECRET, (DB, PORT))

    question = ask(protocol="udp", port=PORT)
    taken = captured(question, talk, enough=lambda taken: len(taken.packets) >= 8)
    assert taken.counts() == dict.fromkeys(PLACES, (1, 1))
    (_, error) = sorted(taken.of(*IN_CART), key=len)
    assert error[14 + 9] == socket.IPPROTO_ICMP
    assert error[14 + 20 :][:2] == bytes([3, 3]) and SECRET[:2] not in error


@in_namespaces
def test_the_same_over_ipv6_beside_ipv4() -> None:
    nodes = TwoNodes(dual=True)
    echo(nodes.db, PORT)
    echo(nodes.db, PORT + 1, "::")
    question = ask(
        pairs=((CART, DB), (CART6, DB6)), tunnels=(TUNNEL, TUNNEL6), uplink_addresses=(NODE["a"], NODE6["a"])
    )

    def talk() -> None:
        datagrams(nodes, 1)
        datagrams(nodes, 1, target=DB6, port=PORT + 1)

    taken = captured(question, talk, enough=lambda taken: len(taken.packets) >= 16)
    ways = {IN_CART: (2, 2), ("", CART_INTERFACE): (2, 2), ("", "eth0"): (2, 2)}
    assert taken.counts() == ways | {("", TUNNEL): (1, 1), ("", TUNNEL6): (1, 1)}
    assert not any(SECRET[:3] in one.data for one in taken.packets)


@in_namespaces
def test_every_fragment_is_captured_where_no_port_was_asked_for() -> None:
    nodes = TwoNodes()
    echo(nodes.db, PORT)
    talk = partial(datagrams, nodes, 1, size=4000)  # three packets each way
    taken = captured(ask(), talk, enough=lambda taken: len(taken.of(*IN_CART)) >= 6)
    assert taken.counts()[IN_CART] == (3, 3)
    assert sorted(map(len, taken.of(*IN_CART))) == [14 + 20] * 4 + [14 + 20 + 8] * 2, "of later ones the IP header"


@in_namespaces
def test_a_flood_between_the_same_pods_is_not_in_the_file_and_hides_nothing() -> None:
    nodes = TwoNodes()
    echo(nodes.db, PORT)
    flood = nodes.cart.run(
        lambda: subprocess.Popen([sys.executable, "-c", FLOOD, DB], stdout=subprocess.PIPE, text=True)
    )
    try:
        assert flood.stdout.readline() == "flooding\n"
        question = ask(protocol="udp", port=PORT)
        taken = captured(question, lambda: datagrams(nodes, 20), enough=lambda taken: len(taken.packets) >= 160)
    finally:
        flood.kill()
        flood.wait()
    assert taken.counts() == dict.fromkeys(PLACES, (20, 20))


@in_namespaces
def test_packets_that_leave_beside_the_tunnel_are_captured_where_they_do() -> None:
    """A route that misses the tunnel is what somebody captures for."""
    nodes = TwoNodes()
    other = "10.244.2.0/26"
    nodes.at("a", lambda ip: ip.route("del", dst=other))
    uplink = nodes.index("a", "eth0")
    nodes.at("a", lambda ip: ip.route("add", dst=other, gateway=NODE["b"], oif=uplink))

    def talk() -> None:
        with nodes.cart.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as one:
            one.sendto(SECRET, (DB, PORT))

    taken = captured(ask(), talk, enough=lambda taken: bool(taken.of("", "eth0")))
    assert taken.counts()["", TUNNEL][0] == 0
    assert taken.of("", "eth0")[0][14 + 9] == socket.IPPROTO_UDP
    assert taken.of("", "eth0")[0][14 + 12 : 14 + 20] == packed(CART) + packed(DB)


@in_namespaces
def test_a_tag_that_the_kernel_took_off_is_in_the_file() -> None:
    """As on an uplink whose node address is in a VLAN."""
    nodes = TwoNodes()
    tag = (0x8100).to_bytes(2, "big") + (7).to_bytes(2, "big")
    packet = bytes.fromhex("45000021 00000000 4011 0000") + packed(DB) + packed(CART)
    packet += PORT.to_bytes(2, "big") + (40000).to_bytes(2, "big") + bytes.fromhex("000d 0000") + SECRET[:5]
    frame = b"\xff" * 6 + bytes(6) + tag + b"\x08\x00" + packet

    def talk() -> None:
        with nodes.b.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as one:
            one.bind(("eth0", 0))
            one.send(frame)

    taken = captured(ask(protocol="udp", port=PORT), talk, enough=lambda taken: bool(taken.packets))
    assert taken.of("", "eth0")[0] == frame[: -len(SECRET[:5])]
    assert taken.packets[0].length == len(frame)


@in_namespaces
def test_a_capture_ends_at_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = TwoNodes()
    echo(nodes.db, PORT)
    many = captured(ask(packets=10), lambda: datagrams(nodes, 10), enough=lambda _: False)
    assert many.end and (many.end.why, many.end.packets, len(many.packets)) == ("packets", 10, 10)
    # What waits unread when the bound is met may have come by another device some microseconds before.
    assert many.end.at_ns > many.began.at_ns, "until then it was told, not before"
    monkeypatch.setattr(capture, "CAPTURE_BYTES", 5000)
    large = captured(ask(payload=True), lambda: datagrams(nodes, 10, size=1000), enough=lambda _: False)
    assert large.end and large.end.why == "bytes"
    assert 5000 <= sum(len(one.data) for one in large.packets) < 5000 + 1100
    began = time.monotonic()
    short = captured(ask(seconds=0.3), lambda: None, enough=lambda _: False)
    assert short.end and (short.end.why, short.end.packets) == ("seconds", 0) and time.monotonic() - began < 10
    assert {(one.pod, one.device) for one in short.stages.values()} == set(PLACES), "places nothing passed are named"
    monkeypatch.setattr(capture, "CAPTURE_SECONDS", 0.3)
    assert captured(ask(seconds=1e9, packets=10**9), lambda: None, enough=lambda _: False).end
    assert CAPTURE_PACKETS <= 20_000


@in_namespaces
def test_a_flow_that_meets_the_bound_at_once_is_told_evenly() -> None:
    """Else a busy flow would seem to be lost in the place that was read last."""
    nodes = TwoNodes()

    def burst() -> None:
        with nodes.cart.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as one:
            for _ in range(1000):
                one.sendto(SECRET, (DB, PORT))

    taken = captured(ask(packets=2000, protocol="udp", port=PORT), burst, enough=lambda _: False)
    assert taken.end and taken.end.why == "packets" and taken.end.lost == 0
    told = [one for one in taken.packets if one.at_ns <= taken.end.at_ns]
    counts = Counter(one.stage for one in told if taken.stages[one.stage].kind != "veth" or not one.out)
    assert len(counts) == 4 and min(counts.values()) > 300
    assert max(counts.values()) - min(counts.values()) <= 64, counts  # as many are on their way through a veth


@in_namespaces
def test_the_first_packets_of_a_busy_node_are_those_that_came_first() -> None:
    """What is told is what came before anything that was left unread: with few wanted that must not be next to none."""
    nodes = TwoNodes()
    echo(nodes.db, PORT)
    taken = captured(ask(packets=16), lambda: connection(nodes), enough=lambda _: False, unread=True)
    assert taken.end and taken.end.why == "packets"
    told = [one for one in taken.packets if one.at_ns <= taken.end.at_ns]
    assert len(told) >= 12, [(one.stage, one.at_ns - taken.end.at_ns) for one in taken.packets]


@in_namespaces
def test_a_flow_that_is_faster_than_the_probe_does_not_stop_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be kept is counted, and the probe goes on answering others."""
    monkeypatch.setattr(capture, "BUFFER", 1 << 12)
    nodes = TwoNodes()
    flood = nodes.cart.run(
        lambda: subprocess.Popen([sys.executable, "-c", FLOOD, DB], stdout=subprocess.PIPE, text=True)
    )
    ticks: list[float] = []

    async def work() -> CaptureLine:
        async def tick() -> None:
            while True:
                ticks.append(time.monotonic())
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        prober = Prober("node-a", {})
        try:
            last = [some[-1] async for some in prober.capture(ask(packets=CAPTURE_PACKETS, seconds=1.0))][-1]
        finally:
            ticking.cancel()
            await prober.close()
        return last

    try:
        assert flood.stdout.readline() == "flooding\n"
        end = asyncio.run(work())
    finally:
        flood.kill()
        flood.wait()
    assert isinstance(end, CaptureEnd) and end.lost > 0
    assert max(after - before for before, after in pairwise(ticks)) < 5


@in_namespaces
def test_nothing_stays_open_when_the_asker_hangs_up() -> None:
    nodes = TwoNodes()
    echo(nodes.db, PORT)

    def sockets() -> int:
        return len([one for one in os.listdir("/proc/self/fd") if _is_packet_socket(one)])  # noqa: PTH208

    before = sockets()
    captured(ask(), lambda: datagrams(nodes, 1), enough=lambda taken: sockets() > before)
    assert sockets() == before


def _is_packet_socket(descriptor: str) -> bool:
    try:
        with socket.socket(fileno=os.dup(int(descriptor))) as one:
            return one.family == socket.AF_PACKET
    except OSError:
        return False


@in_namespaces
def test_a_pod_that_cannot_be_entered_is_told_and_the_node_is_captured() -> None:
    nodes = TwoNodes()
    echo(nodes.db, PORT)
    gone = LocalPod(name="shop/gone", address="10.244.1.9", interface="cali0000000dead")
    taken = captured(ask(pods=(gone,)), lambda: datagrams(nodes, 1), enough=lambda taken: len(taken.packets) >= 6)
    (began,) = [one for one in taken.lines if isinstance(one, CaptureBegan)]
    assert len(began.blind) == 1 and "shop/gone" in began.blind[0] and "does not exist" in began.blind[0]
    assert taken.counts()["", CART_INTERFACE] == (1, 1)


@in_namespaces
def test_what_makes_no_sense_is_refused_with_a_reason() -> None:
    for changes in (
        {"pairs": ()},
        {"pairs": ((CART, DB),) * 5},
        {"pairs": ((CART, DB6),)},
        {"pairs": (("cart", "db"),)},
        {"protocol": "sctp"},
    ):
        with pytest.raises(CannotCapture):
            captured(ask(**changes), lambda: None, enough=lambda _: True)


def test_headers_end_where_the_payload_begins() -> None:
    """Of packets this machine cannot make: IPIP, options, a later fragment, what was cut short."""
    own = {packed(CART), packed(DB)}

    def ipv4(protocol: int, behind: bytes, *, fragment: int = 0, options: bytes = b"") -> bytes:
        first = bytes([0x45 + len(options) // 4, 0]) + (20 + len(behind)).to_bytes(2, "big") + bytes(2)
        rest = fragment.to_bytes(2, "big") + bytes([64, protocol, 0, 0]) + packed(CART) + packed(DB) + options
        return first + rest + behind

    tcp = bytes(12) + b"\x80" + bytes(19)
    for packet, headers in (
        (ipv4(6, tcp + SECRET), 20 + 32),
        (ipv4(6, tcp + SECRET, options=bytes(8)), 28 + 32),
        (ipv4(4, ipv4(17, bytes(8) + SECRET)), 20 + 20 + 8),
        (ipv4(17, SECRET * 2, fragment=100), 20),
        (ipv4(1, b"\x08" + bytes(7) + SECRET), 20 + 8),
        (ipv4(1, b"\x03\x04" + bytes(6) + ipv4(17, bytes(8) + SECRET)), 20 + 8 + 20 + 8),
        (ipv4(132, SECRET), 20),
    ):
        assert headers_end(packet, 0, own) == headers
        assert headers_end(bytes(14) + packet, 14, own) == 14 + headers
        for length in range(len(packet)):
            assert SECRET[:3] not in packet[: min(length, headers_end(packet[:length], 0, own))]
