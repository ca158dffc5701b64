"""The size from which on packets are lost is found, and what is lost only now and then is counted, on a real kernel."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Sequence

import pytest

from facts import Blind, Fact, ProbeResult, SendProbe, Train
from lab.wire import TCP, UDP, drop_by_port, drop_some_udp
from node_probe import packets, series, sizes
from tests.namespaces import in_namespaces
from tests.test_firewall_trace import needs
from tests.test_packets import send
from tests.two_nodes import DB, DB6, NODE, STRANGER, TwoNodes, echo, from_cart

VXLAN_PORT = 4789
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
VXLAN = {4: 50, 6: 70}
VLAN = 4  # a veth lets so much more in than its MTU says


def narrow(nodes: TwoNodes, mtu: int) -> None:
    """The other node's card takes no larger packets; nobody tells the sender."""
    nodes.at("b", lambda ip: ip.link("set", index=ip.link_lookup(ifname="eth0")[0], mtu=mtu))


def full(facts: list[Fact]) -> ProbeResult:
    (found,) = [fact for fact in facts if isinstance(fact, ProbeResult) and fact.size]
    return found


def train(protocol: str, **changes: int) -> Train:
    (fact,) = send(from_cart(protocol, **({"count": 20} | changes)), patience_ms=300)  # type: ignore[arg-type]
    assert isinstance(fact, Train), fact
    return fact


@in_namespaces
def test_the_largest_packet_that_passes_is_found_while_the_full_size_one_is_waited_for() -> None:
    nodes = TwoNodes(dual=True)
    narrow(nodes, 1423)
    began = time.monotonic()
    for target, family in ((DB, 4), (DB6, 6)):
        probes = [SendProbe(pod="shop/cart", target=target, protocol="icmp", size=size) for size in (0, -1)]
        one = full(send(*probes))
        assert (one.answered, one.outcome) == (0, "silence")
        assert (one.passes, one.stops) == (1423 + VLAN - VXLAN[family], 1424 + VLAN - VXLAN[family])
    assert time.monotonic() - began < 2 * packets.TIMEOUT_S + 2, "looking for it makes no answer later"


async def test_the_search_ends_where_full_size_packets_come_back_later_than_it_began() -> None:
    """All that ask on a busy node would else send forty more packets each, and be told nothing in time."""
    rounds: list[Sequence[int]] = []

    async def tried(some: Sequence[int]) -> set[int]:
        rounds.append(some)
        return set()

    until = time.monotonic() + 60
    found = await sizes.search(tried, 100, 1450, until, 0.1, needless=lambda: len(rounds) > 0)
    assert (found, len(rounds)) == ((-1, -1), 1)


@in_namespaces
def test_where_all_sizes_pass_or_none_does_no_size_is_told() -> None:
    TwoNodes()
    for target, outcome in ((DB, "answered"), (STRANGER, "silence")):
        probes = [SendProbe(pod="shop/cart", target=target, protocol="icmp", size=size) for size in (0, -1)]
        one = full(send(*probes))
        assert (one.outcome, one.passes, one.stops) == (outcome, -1, -1)


@in_namespaces
def test_a_good_path_brings_both_trains_back() -> None:
    nodes = TwoNodes()
    echo(nodes.db, 8080)
    for protocol, port in (("icmp", 0), ("tcp", 8080), ("tcp", 81)):  # a port nobody listens on is answered too
        one = train(protocol, port=port, every_ms=2)
        assert (one.sent, one.back, one.sent_again, one.back_again, one.retried) == (20, 20, 20, 20, 0)
        assert (one.lost, one.outcome, one.lost_ports) == (0, "", ())
        assert 0 < one.rtt_us <= one.rtt_most_us or port == 81


@in_namespaces
def test_a_train_alone_is_sent_once_each_packet_with_a_port_of_its_own() -> None:
    nodes = TwoNodes()
    echo(nodes.db, 8080)
    nodes.b.run(lambda: drop_by_port("eth0", UDP))
    one = train("tcp", port=8080, count=32, every_ms=1, once=True)
    assert (one.sent, one.sent_again, one.back_again, one.retried) == (32, 0, 0, 0)
    assert 0 < one.back < 32 and one.once, "one of two cables is broken: some take the other"
    assert len(set(one.lost_ports)) == min(one.lost, series.PORTS_TOLD) and all(
        port >= 61440 for port in one.lost_ports
    )


@needs("tc")
@in_namespaces
def test_what_waits_in_a_queue_is_late_and_not_lost() -> None:
    """A node that is kept from running, or a full cable, brings each answer later than the one before."""
    nodes = TwoNodes()
    echo(nodes.db, 8080)
    queue = ["tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "40kbit", "burst", "200", "limit", "100000"]
    nodes.b.run(lambda: subprocess.run(queue, check=True))
    for protocol, port in (("icmp", 0), ("tcp", 8080)):
        one = train(protocol, port=port, count=24, every_ms=1, once=True)
        assert (one.sent, one.lost) == (24, 0)
        assert one.rtt_most_us > 400_000, "longer than silence is waited for"


@in_namespaces
def test_every_third_packet_is_lost() -> None:
    nodes = TwoNodes()
    echo(nodes.db, 8080)
    nodes.b.run(lambda: drop_some_udp("eth0", VXLAN_PORT, 3))
    for protocol, port in (("icmp", 0), ("tcp", 8080)):
        one = train(protocol, port=port, every_ms=2)
        assert 4 <= one.sent - one.back <= 12 and 4 <= one.sent_again - one.back_again <= 12
        assert (one.outcome, one.retried) == ("silence", one.sent - one.back)
        assert len(one.lost_ports) == (one.retried if port else 0)
        assert one.retried_back > 0, "the same packets sent again pass"
        assert not one.same_lost_again


@pytest.mark.parametrize("target", ["node", "pod"])
@in_namespaces
def test_one_of_two_cables_is_broken(target: str) -> None:
    """Which of them a packet takes depends on its ports, in a tunnel too: the same ones fail again."""
    nodes = TwoNodes()
    echo(nodes.b if target == "node" else nodes.db, 8080)
    nodes.b.run(lambda: drop_by_port("eth0", TCP if target == "node" else UDP))
    probe = from_cart("tcp", port=8080, count=40, every_ms=1)
    if target == "node":
        probe = SendProbe(pod="", target=NODE["b"], protocol="tcp", port=8080, count=40, every_ms=1)
    (one,) = send(probe, patience_ms=300)
    assert isinstance(one, Train), one
    assert 4 <= one.back < one.sent and 4 <= one.back_again < one.sent_again
    assert target == "pod" or all(port & 2 for port in one.lost_ports)
    assert one.retried == one.sent - one.back and one.retried_back == 0
    assert one.same_lost_again


@in_namespaces
def test_a_train_fills_no_server_s_queue() -> None:
    """The server's program is busy: connections would wait in a queue, and be lost when that is full."""
    nodes = TwoNodes()
    with nodes.db.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as server:
        server.bind((DB, 8080))
        server.listen(1)
        one = train("tcp", port=8080, every_ms=2)
        assert (one.lost, one.sent) == (0, 20)


@pytest.mark.parametrize(
    "probe",
    [from_cart("udp", port=8080, every_ms=2), from_cart("icmp", count=packets.MOST // 2 + 1, every_ms=2)],
    ids=["an UDP server need not answer", "twice as many packets as it says"],
)
@in_namespaces
def test_trains_that_are_not_sent(probe: SendProbe) -> None:
    TwoNodes()
    (fact,) = send(probe)
    assert isinstance(fact, Blind) and fact.look == "packets"


@in_namespaces
def test_large_packets_are_tried_by_tcp_too_where_pings_are_not_answered() -> None:
    """First packets of connections with data in them: the server sees nothing of it, nor of a connection."""
    nodes = TwoNodes(dual=True)
    for target, family in ((DB, 4), (DB6, 6)):
        with nodes.db.run(lambda family=family: socket.socket(FAMILIES[family], socket.SOCK_STREAM)) as server:
            server.bind((target, 8080))
            server.listen(8)
            server.setblocking(False)
            large = SendProbe(pod="shop/cart", target=target, protocol="tcp", port=8080, size=-1)
            small = SendProbe(pod="shop/cart", target=target, protocol="tcp", port=8080)
            one = full(send(large))
            assert (one.sent, one.answered, one.outcome, one.protocol) == (2, 2, "answered", "tcp")
            assert one.size == 1430 and one.rtt_us > 0
            with pytest.raises(BlockingIOError):
                server.accept()
            narrow(nodes, 1423)
            one = full(send(small, large, patience_ms=1000))
            assert (one.answered, one.outcome) == (0, "silence")
            assert (one.passes, one.stops) == (1423 + VLAN - VXLAN[family], 1424 + VLAN - VXLAN[family])
            narrow(nodes, 1500)
            closed = full(send(SendProbe(pod="shop/cart", target=target, protocol="tcp", port=81, size=-1)))
            assert (closed.answered, closed.outcome, closed.answered_by) == (0, "refused", target)
