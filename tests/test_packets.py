"""What fresh packets meet on a good path and on cut ones, and that every one of them is told as what it was."""

from __future__ import annotations

import asyncio
import queue
import socket
import struct
import threading
import time
from typing import Any

from facts import Blind, Fact, LocalPod, ProbeResult, SendProbe
from node_probe import namespaces, packets
from node_probe.answer import Prober
from node_probe.filters import INSTRUCTION, attach
from tests.namespaces import in_namespaces
from tests.two_nodes import (
    CART,
    CART_INTERFACE,
    DB,
    DB_INTERFACE,
    NODE,
    STRANGER,
    TUNNEL,
    TwoNodes,
    ask,
    echo,
    from_cart,
)

# Of TCP's header: flags & SYN, else it is dropped.
FIRST_ONLY = ((0x30, 0, 0, 13), (0x54, 0, 0, 2), (0x15, 0, 1, 2), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0))


def send(*probes: SendProbe, seconds: float = 10.0, **changes: Any) -> list[Fact]:
    """The answers about these probes alone, in their order."""

    async def answer() -> list[Fact]:
        prober = Prober("node-a", {})
        try:
            return await prober.answer(ask(send=probes, **changes), time.monotonic() + seconds)
        finally:
            await prober.close()

    facts = asyncio.run(answer())

    def place(fact: Fact) -> int:
        return next(
            (
                number
                for number, one in enumerate(probes)
                if isinstance(fact, ProbeResult)
                and (one.pod, one.target, one.protocol, one.port)
                == (fact.pod, fact.target_address, fact.protocol, fact.port)
                and bool(one.size) == bool(fact.size)
            ),
            len(probes),
        )

    return sorted(facts, key=place)


def result(fact: Fact) -> ProbeResult:
    assert isinstance(fact, ProbeResult), fact
    return fact


def met(fact: Fact) -> tuple[int, int, str, str]:
    one = result(fact)
    return one.sent, one.answered, one.outcome, one.answered_by


@in_namespaces
def test_a_good_path_answers_every_kind() -> None:
    nodes = TwoNodes()
    echo(nodes.db, 8080)
    facts = send(
        from_cart("icmp"),
        from_cart("icmp", size=-1),
        from_cart("tcp", port=8080, count=3),
        from_cart("udp", port=8080),
        from_cart("udp", port=8080, size=-1),
        SendProbe(pod="", target=CART, protocol="icmp"),
        SendProbe(pod="", target=DB, protocol="icmp", size=-1, count=1),
    )
    results = [result(fact) for fact in facts]
    for one in results:
        assert one.outcome == "answered" and one.answered == one.sent and one.rtt_us > 0
        assert (one.node, one.answered_by, one.detail) == ("node-a", "", "")
    assert [one.sent for one in results] == [2, 2, 3, 2, 2, 2, 1]
    assert [one.size for one in results] == [0, 1450, 0, 0, 1450, 0, 1450], "as large as the pod's MTU"
    assert [one.source_address for one in results[:6]] == [CART] * 5 + [NODE["a"]]


@in_namespaces
def test_refusals_of_the_target() -> None:
    nodes = TwoNodes()
    echo(nodes.db, 8080)
    tcp, udp = send(from_cart("tcp", port=81), from_cart("udp", port=81))
    assert met(tcp) == (2, 0, "refused", DB)
    assert met(udp) == (2, 0, "refused", DB)
    assert "reset" in result(tcp).detail and "port unreachable" in result(udp).detail
    assert result(tcp).rtt_us == -1


def served(nodes: TwoNodes, port: int, *options: tuple[int, int, int], at_once: str = "") -> socket.socket:
    """A server in the target's pod, as long as it is kept. at_once: it does "close" or "reset" each connection; else it
    takes none."""

    def bind() -> socket.socket:
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        for option in options:
            one.setsockopt(*option)
        one.bind(("0.0.0.0", port))
        one.listen(64)
        return one

    server = nodes.db.run(bind)

    def serve() -> None:
        while at_once:
            one, _ = server.accept()
            if at_once == "reset":
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.close()

    threading.Thread(target=serve, daemon=True).start()
    return server


@in_namespaces
def test_a_server_that_does_not_wait_for_anybody_answers_all_the_same() -> None:
    nodes = TwoNodes()
    kept = [
        served(nodes, 81, at_once="close"),
        served(nodes, 82, at_once="reset"),
        served(nodes, 83),  # as one that hangs: its kernel takes the connections, until its queue is full
        served(nodes, 84, (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)),  # as web servers: not before data comes
    ]
    facts = send(*(from_cart("tcp", port=one.getsockname()[1], count=4) for one in kept))
    assert [met(fact) for fact in facts] == [(4, 4, "answered", "")] * 4
    assert [result(fact).unended for fact in facts] == [0] * 4


@in_namespaces
def test_a_connection_in_which_nothing_follows_the_handshake_is_not_answered() -> None:
    nodes = TwoNodes()
    echo(nodes.db, 8080)
    hanging = served(nodes, 81)
    attach(hanging, b"".join(INSTRUCTION.pack(*one) for one in FIRST_ONLY))
    ended, unended = send(from_cart("tcp", port=8080), from_cart("tcp", port=81))
    assert (met(ended), result(ended).unended) == ((2, 2, "answered", ""), 0)
    assert (met(unended), result(unended).unended) == ((2, 0, "silence", ""), 2)


@in_namespaces
def test_silence_takes_its_time_but_no_more() -> None:
    nodes = TwoNodes()
    tunnel = nodes.index("a", TUNNEL)
    nodes.at("a", lambda ip: ip.fdb("del", ifindex=tunnel, lladdr="66:00:00:00:00:0b"))
    began = time.monotonic()
    facts = send(from_cart("icmp"), from_cart("tcp", port=8080), from_cart("udp", port=8080))
    took = time.monotonic() - began
    assert [met(fact) for fact in facts] == [(2, 0, "silence", "")] * 3
    assert 0.9 < took < 4, "all at once, each a second"
    assert [result(fact).source_address for fact in facts] == [CART] * 3


@in_namespaces
def test_a_probe_that_was_kept_from_running_does_not_call_it_silence() -> None:
    """On a node without a free processor the answers wait in the sockets until it is too late."""
    nodes = TwoNodes()
    datagrams = nodes.db.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    datagrams.bind((DB, 8080))
    kept = threading.Event()

    def answer_late() -> None:
        for data, sender in [datagrams.recvfrom(100) for _ in range(2)]:
            kept.wait(10)
            datagrams.sendto(data, sender)

    async def kept_from_running() -> list[Fact]:
        def stall() -> None:
            kept.set()
            time.sleep(packets.TIMEOUT_S + 0.2)

        prober = Prober("node-a", {})
        asyncio.get_running_loop().call_later(packets.TIMEOUT_S / 2, stall)
        try:
            return await prober.answer(ask(send=(from_cart("udp", port=8080),)), time.monotonic() + 10)
        finally:
            await prober.close()

    thread = threading.Thread(target=answer_late)
    thread.start()
    (fact,) = [one for one in asyncio.run(kept_from_running()) if isinstance(one, ProbeResult)]
    thread.join()
    assert met(fact) == (2, 2, "answered", "")


@in_namespaces
def test_the_deadline_bounds_the_waiting() -> None:
    nodes = TwoNodes()
    tunnel = nodes.index("a", TUNNEL)
    nodes.at("a", lambda ip: ip.fdb("del", ifindex=tunnel, lladdr="66:00:00:00:00:0b"))
    began = time.monotonic()
    (fact,) = send(from_cart("icmp"), seconds=0.4)
    assert time.monotonic() - began < 0.9
    assert isinstance(fact, Blind) and fact.late, "so short a silence is no loss"
    (fact,) = send(from_cart("icmp"), seconds=0.8)
    assert met(fact) == (2, 0, "silence", "")


@in_namespaces
def test_icmp_errors_name_who_sent_them() -> None:
    nodes = TwoNodes()
    nodes.sysctl("a", "net/ipv4/icmp_ratelimit", "0")
    nodes.at("a", lambda ip: ip.route("add", dst=f"{STRANGER}/32", type="unreachable"))
    nodes.at("a", lambda ip: ip.route("add", dst="10.99.0.0/16", type="prohibit"))
    facts = send(
        # One each: a kernel tells of five packets at once, then of one a second.
        from_cart("icmp", STRANGER, count=1),
        from_cart("tcp", STRANGER, port=80, count=1),
        from_cart("udp", STRANGER, port=80, count=1),
        from_cart("tcp", "10.99.0.1", port=80, count=1),
    )
    for fact in facts[:3]:
        assert met(fact) == (1, 0, "unreachable", NODE["a"])
        assert result(fact).detail == f"{NODE['a']} says: host unreachable"
    assert met(facts[3]) == (1, 0, "unreachable", NODE["a"])
    assert "prohibited" in result(facts[3]).detail


@in_namespaces
def test_a_routing_loop_is_unreachable() -> None:
    nodes = TwoNodes()
    tunnel = nodes.index("b", TUNNEL)
    nodes.at("b", lambda ip: ip.route("replace", dst=f"{DB}/32", gateway="10.244.1.0", oif=tunnel, flags=4))
    (fact,) = send(from_cart("icmp"))
    one = result(fact)
    assert one.outcome == "unreachable" and "time to live exceeded" in one.detail
    assert one.answered_by in ("10.244.1.0", "10.244.2.0", NODE["a"], NODE["b"])


@in_namespaces
def test_packets_too_large_for_the_way_and_for_the_sender() -> None:
    nodes = TwoNodes()
    nodes.at("a", lambda ip: ip.link("set", index=nodes.index("a", TUNNEL), mtu=1300))
    small, full = send(from_cart("icmp"), from_cart("icmp", size=-1))
    assert met(small)[2] == "answered"
    assert met(full)[1:3] == (0, "too_big")
    assert result(full).size == 1450 and result(full).sent == 2
    assert result(full).answered_by and "1300" in result(full).detail
    (own,) = send(from_cart("icmp", size=2000))
    assert met(own) == (0, 0, "too_big", "")
    (udp,) = send(from_cart("udp", port=8080, size=1450))
    assert met(udp)[2] == "too_big"


@in_namespaces
def test_the_senders_own_kernel_refuses() -> None:
    nodes = TwoNodes()
    nodes.at("cart", lambda ip: ip.route("del", dst="0.0.0.0/0"))
    nodes.at("a", lambda ip: ip.route("add", dst=f"{STRANGER}/32", type="blackhole"))
    facts = send(
        from_cart("icmp"), from_cart("tcp", port=80), from_cart("udp", port=80),
        SendProbe(pod="", target=STRANGER, protocol="icmp", size=-1),
    )  # fmt: skip
    for fact in facts:
        assert met(fact) == (0, 0, "unreachable", ""), fact
        assert "own kernel" in result(fact).detail
    assert result(facts[0]).source_address == CART
    assert result(facts[3]).source_address == ""


@in_namespaces
def test_only_what_is_said_about_this_very_packet_counts() -> None:
    """Others ping the same target from the same pod, and are answered and refused all the time."""
    nodes = TwoNodes()
    ended = threading.Event()
    kinds = (b"\0\0\xff\xff\0\0\0\0", b"\3\1" + bytes(6) + _inner(CART, DB) + b"\x08\0\xff\xff\0\0\0\0")
    stray = nodes.db.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))

    def chatter() -> None:
        while not ended.wait(0.01):  # more of them would fill the socket before a busy machine reads it
            for packet in kinds:  # an answer to, and an error about, a ping that is not ours
                blank = packet[:2] + b"\0\0" + packet[4:]
                stray.sendto(blank[:2] + packets._checksum(blank).to_bytes(2, "big") + blank[4:], (CART, 0))

    thread = threading.Thread(target=chatter)
    thread.start()
    try:
        assert met(send(from_cart("icmp", count=5))[0]) == (5, 5, "answered", "")
        nodes.sysctl("db", "net/ipv4/icmp_echo_ignore_all", "1")
        assert met(send(from_cart("icmp", count=5))[0]) == (5, 0, "silence", "")
    finally:
        ended.set()
        thread.join()
        stray.close()


def _inner(source: str, target: str) -> bytes:
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    blank = struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 1, 0) + ends
    return blank[:10] + packets._checksum(blank).to_bytes(2, "big") + blank[12:]


@in_namespaces
def test_every_packet_is_a_new_flow() -> None:
    nodes = TwoNodes()
    accepted: queue.Queue[tuple[str, int]] = queue.Queue()
    stream = nodes.db.run(lambda: socket.create_server(("0.0.0.0", 8080)))
    raw = nodes.db.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))

    def accept() -> None:
        while True:
            one, peer = stream.accept()
            accepted.put(peer)
            one.close()

    threading.Thread(target=accept, daemon=True).start()
    send(from_cart("tcp", port=8080, count=5))
    seen = [accepted.get(timeout=5) for _ in range(5)]  # the kernel answers before the server has accepted
    assert len({port for _, port in seen}) == 5
    assert {address for address, _ in seen} == {CART}
    send(from_cart("icmp", count=5))
    raw.settimeout(5)
    assert len({raw.recv(4096)[24:28] for _ in range(5)}) == 5, "identifier and sequence number"


@in_namespaces
def test_what_cannot_be_sent_is_blind_and_costs_nothing_else() -> None:
    nodes = TwoNodes()
    echo(nodes.db, 8080)
    facts = send(
        from_cart("icmp"),
        SendProbe(pod="shop/nobody", target=DB, protocol="icmp"),
        from_cart("sctp", port=80),
        from_cart("icmp", "shop/db"),
        from_cart("icmp", "fd00:::1"),
        from_cart("tcp"),
        from_cart("icmp", port=8),
        SendProbe(pod="shop/gone", target=DB, protocol="icmp"),
        local_pods=(
            LocalPod(name="shop/cart", address=CART, interface=CART_INTERFACE),
            LocalPod(name="shop/gone", address=STRANGER, interface=DB_INTERFACE),
        ),
    )
    assert met(facts[0])[2] == "answered"
    blind = [fact.reason for fact in facts if isinstance(fact, Blind) and fact.look == "packets"]
    assert len(blind) == 7 == len(facts) - 1
    for words in (
        "not among the pods",
        "icmp, tcp and udp only",
        "'shop/db' is not an IP address",
        "'fd00:::1' is not an IP address",
        "0 is not a port",
        "does not exist",
    ):
        assert any(words in reason for reason in blind), (words, blind)


@in_namespaces
def test_a_pod_that_cannot_be_entered_sends_nothing() -> None:
    TwoNodes()
    namespaces.DIRECTORIES = ()
    (fact,) = send(from_cart("icmp"))
    assert isinstance(fact, Blind) and fact.look == "packets" and CART_INTERFACE in fact.reason


@in_namespaces
def test_a_missing_capability_is_named() -> None:
    TwoNodes()
    send(from_cart("icmp"))  # a path nobody used yet may lose its first packet to address resolution
    made = socket.socket

    def refusing(family: int, kind: int, *rest: int) -> socket.socket:
        if kind == socket.SOCK_RAW and family == socket.AF_INET:
            raise PermissionError(1, "Operation not permitted")
        return made(family, kind, *rest)

    packets.socket.socket = refusing  # type: ignore[assignment, misc]
    icmp = send(from_cart("icmp"), from_cart("tcp", port=81))
    assert [fact.reason for fact in icmp if isinstance(fact, Blind)] == [
        f"icmp from shop/cart to {DB}: not permitted; the probe needs NET_RAW"
    ]
    assert [result(fact).outcome for fact in icmp if isinstance(fact, ProbeResult)] == ["refused"]


@in_namespaces
def test_a_probe_is_no_flood() -> None:
    TwoNodes()
    for probes in ((from_cart("icmp", count=packets.MOST + 1),), (from_cart("icmp", count=0),)):
        (fact,) = send(*probes)
        assert isinstance(fact, Blind) and f"at most {packets.MOST} " in fact.reason


@in_namespaces
def test_facts_are_read_before_packets_are_sent() -> None:
    """A packet would make the kernel write the very neighbor entry that was missing."""
    from facts import Neighbor

    nodes = TwoNodes()
    nodes.at("a", lambda ip: ip.neigh("del", dst="10.244.2.0", ifindex=nodes.index("a", TUNNEL)))

    async def answer() -> list[Fact]:
        prober = Prober("node-a")
        try:
            return await prober.answer(ask(send=(from_cart("icmp"),)), time.monotonic() + 10)
        finally:
            await prober.close()

    facts = asyncio.run(answer())
    (seen,) = [fact for fact in facts if isinstance(fact, Neighbor) and fact.device == TUNNEL]
    assert (seen.found, seen.state) == (False, "")
    assert [result(fact).outcome for fact in facts if isinstance(fact, ProbeResult)] == ["silence"]
