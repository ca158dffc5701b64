"""Packets that were lost while a kernel asked for a MAC are sent once more; nobody else waits."""

from __future__ import annotations

import msgspec

from engine.settling import ALL_S, EVERY_S, asking
from facts import Neighbor, PeerGateway, PodInterface, PodRoute, ProbeResult

GATEWAY, TARGET = "169.254.1.1", "10.244.2.3"
POD = PodInterface(
    node="node-a", pod="shop/cart", interface="cali1", found=True, entered=True, pod_default_next_hop=GATEWAY
)
ROUTE = PodRoute(node="node-a", pod="shop/cart", destination=TARGET, found=True, prefix="0.0.0.0/0", next_hop=GATEWAY)
LOST = ProbeResult(
    node="node-a",
    pod="shop/cart",
    source_address="10.244.1.2",
    target_address=TARGET,
    protocol="icmp",
    sent=2,
    answered=0,
    outcome="silence",
)


def at(*addresses: str) -> PodInterface:
    return msgspec.structs.replace(POD, pod_asking=addresses)


def test_a_pod_that_asks_for_its_gateway_is_waited_for() -> None:
    assert asking([at(GATEWAY), ROUTE, LOST]) == {"shop/cart": EVERY_S}


def test_a_pod_that_was_redirected_is_waited_for_until_it_gives_up() -> None:
    assert asking([at(TARGET), ROUTE, LOST]) == {"shop/cart": ALL_S}
    by_itself = msgspec.structs.replace(ROUTE, prefix="10.244.0.0/16", next_hop="")
    assert asking([at(TARGET), by_itself, LOST]) == {}, "its own route has it ask there, for ever"


def test_a_node_that_asks_for_its_peer_or_the_router_to_it_is_waited_for() -> None:
    peer = Neighbor(node="node-b", device="eth0", address="fd00:172:30::b", found=True, state="INCOMPLETE", asked=True)
    router = PeerGateway(node="node-b", peer="172.31.0.11", device="eth0", address="172.30.0.1", state="INCOMPLETE")
    assert asking([peer, LOST]) == asking([router, LOST]) == {"node-b": EVERY_S}
    for state in ("REACHABLE", "FAILED"):
        known = [msgspec.structs.replace(peer, state=state), msgspec.structs.replace(router, state=state)]
        assert asking([*known, LOST]) == {}
    assert asking([msgspec.structs.replace(peer, asked=False), LOST]) == {}, "a tunnel's, which nobody answers"
    assert asking([peer, router, msgspec.structs.replace(LOST, answered=2, outcome="answered")]) == {}


def test_nobody_waits_where_packets_pass_or_for_somebody_else() -> None:
    answered = msgspec.structs.replace(LOST, answered=2, outcome="answered")
    assert asking([at(GATEWAY), ROUTE, answered]) == {}
    assert asking([at("10.9.9.9"), ROUTE, LOST]) == {}
    assert asking([at(), ROUTE, LOST]) == {}
