"""Full-size packets of the asked port on real kernels, there and back: a rule or a network that eats those alone is
seen, whichever way, and what lets none of this kind pass proves nothing."""

from __future__ import annotations

import socket
from typing import Any

import msgspec
import pytest

from facts import Answering, LocalPod, NodeAsk, ProbeResult, SendProbe
from tests.namespaces import in_namespaces
from tests.test_firewall_trace import answers, needs, nft
from tests.test_tap import watches
from tests.two_nodes import CART, CART6, CART_INTERFACE, DB, DB6, DB_INTERFACE, NODE, NODE6, TwoNodes, echo

PORT = 8080
MARK = "00112233445566aa"
KINDS = [(protocol, six) for six in (False, True) for protocol in ("tcp", "udp")]


def asks(protocol: str = "tcp", *, six: bool = False, port: int = PORT, **changes: Any) -> list[NodeAsk]:
    """What the bot asks both nodes about full-size packets from shop/cart on a to shop/db on b."""
    cart, db, addresses = (CART6, DB6, NODE6) if six else (CART, DB, NODE)
    send = tuple(
        SendProbe(pod="shop/cart", target=db, protocol=protocol, port=port, large=way, **changes)
        for way in ("there", "back")
    )
    common: dict[str, Any] = {"family": 6 if six else 4, "read": False, "felix": False, "mark": MARK}
    return [
        NodeAsk(
            node="node-a",
            uplink_address=addresses["a"],
            local_pods=(LocalPod(name="shop/cart", address=cart, interface=CART_INTERFACE),),
            watch=tuple(one for one in watches("a", six=six) if one.way == "out"),
            send=send,
            **common,
        ),
        NodeAsk(
            node="node-b",
            uplink_address=addresses["b"],
            local_pods=(LocalPod(name="shop/db", address=db, interface=DB_INTERFACE),),
            watch=tuple(one for one in watches("b", six=six) if one.way == "in"),
            answering=(Answering(pod="shop/db", address=db, protocol=protocol),),
            **common,
        ),
    ]


def tried(nodes: TwoNodes, wanted: list[NodeAsk]) -> dict[str, ProbeResult]:
    """What became of them, by their way."""
    found = [one for one in answers(nodes, *wanted) if isinstance(one, ProbeResult)]
    assert all(one.size for one in found)
    return {"back" if one.answers else "there": one for one in found}


def rule(text: str) -> None:
    nft(f"table inet corp {{ chain guard {{ type filter hook forward priority 10; {text} counter drop\n}}\n}}")


@pytest.mark.parametrize(("protocol", "six"), KINDS)
@in_namespaces
def test_on_a_good_path_they_come_there_and_back_in_full_size(protocol: str, six: bool) -> None:
    nodes = TwoNodes(dual=six)
    echo(nodes.db, PORT, "::" if six else "0.0.0.0")
    found = tried(nodes, asks(protocol, six=six))
    met = (1430 if six else 1450, 2, 2, "answered")
    assert {way: (one.size, one.sent, one.answered, one.outcome) for way, one in found.items()} == {
        "there": met,
        "back": met,
    }
    assert all(one.rtt_us > 0 and (one.passes, one.stops) == (-1, -1) for one in found.values())


@pytest.mark.parametrize(("protocol", "six"), KINDS)
@pytest.mark.parametrize("way", ["there", "back"])
@needs("nft")
@in_namespaces
def test_a_rule_that_drops_large_ones_of_the_kind_alone_is_seen_whichever_way(
    way: str, protocol: str, six: bool
) -> None:
    nodes = TwoNodes(dual=six)
    echo(nodes.db, PORT, "::" if six else "0.0.0.0")
    cart, db = (CART6, DB6) if six else (CART, DB)
    source = f"{'ip6' if six else 'ip'} saddr {cart if way == 'there' else db}"
    nodes.b.run(lambda: rule(f"{source} meta l4proto {protocol} meta length > 1300"))
    found = tried(nodes, asks(protocol, six=six))
    lost = found.pop(way)
    assert (lost.answered, lost.outcome, lost.stalls) == (0, "silence", True)
    # meta length is that of the whole packet
    assert (lost.passes, lost.stops) == (1300, 1301)
    assert [one.answered for one in found.values()] == [2], "the other way is well"


@needs("nft")
@in_namespaces
def test_they_are_as_large_as_the_two_ends_would_use() -> None:
    """A pod made before its MTU was raised, and somebody who clamps what connections announce (MSS): TCP never sends
    larger ones there."""
    nodes = TwoNodes()
    echo(nodes.db, PORT)
    nodes.at("db", lambda ip: ip.link("set", index=ip.link_lookup(ifname="eth0")[0], mtu=1300))
    for protocol in ("tcp", "udp"):
        assert {way: (one.size, one.answered) for way, one in tried(nodes, asks(protocol)).items()} == {
            "there": (1300, 2),
            "back": (1300, 2),
        }
    clamp = "tcp flags syn tcp option maxseg size set 1000"
    nodes.b.run(lambda: nft(f"table inet corp {{ chain c {{ type filter hook forward priority 0; {clamp}\n}}\n}}"))
    assert {way: one.size for way, one in tried(nodes, asks("tcp")).items()} == {"there": 1040, "back": 1040}


@needs("nft")
@in_namespaces
def test_where_small_ones_with_data_do_not_come_back_nothing_is_said() -> None:
    """Of policies that drop the port, ports nobody listens on, and firewalls that dislike data in a first packet."""
    nodes = TwoNodes()
    assert tried(nodes, asks("tcp")) == {} and tried(nodes, asks("udp")) == {}, "nobody listens"
    echo(nodes.db, PORT)
    nodes.b.run(lambda: rule("tcp flags syn meta length > 60"))
    assert tried(nodes, asks("tcp")) == {}
    nodes.b.run(lambda: rule(f"meta l4proto {{ tcp, udp }} th dport {PORT}"))
    assert tried(nodes, asks("tcp")) == {} and tried(nodes, asks("udp")) == {}


@in_namespaces
def test_only_the_packets_of_the_question_are_answered() -> None:
    nodes = TwoNodes()
    echo(nodes.db, PORT)
    here, there = asks("udp")
    other, nobody = (msgspec.structs.replace(there, mark=mark) for mark in ("ff" * 8, ""))
    assert tried(nodes, [here, other]) == {}
    assert tried(nodes, [msgspec.structs.replace(here, mark=""), nobody]) == {}
    assert set(tried(nodes, [here, there])) == {"there", "back"}
    assert set(tried(nodes, [asks("tcp")[0]])) == {"there"}, "the server itself answers a connection's first packet"


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
@in_namespaces
def test_the_server_hears_of_no_connection(six: bool) -> None:
    nodes = TwoNodes(dual=True)
    family, address = (socket.AF_INET6, DB6) if six else (socket.AF_INET, DB)
    with nodes.db.run(lambda: socket.socket(family, socket.SOCK_STREAM)) as server:
        server.bind((address, PORT))
        server.listen(1)
        server.setblocking(False)
        assert [one.answered for one in tried(nodes, asks("tcp", six=six)).values()] == [2, 2]
        with pytest.raises(BlockingIOError):
            server.accept()
