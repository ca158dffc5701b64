"""A pod whose own rules lead its connections to a proxy, as a service mesh does: that the proxy answers says nothing of
the target, which is asked past it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from facts import Blind, ProbeResult
from lab.client import Lab
from tests.asking import ask

CART, DB = "shop/cart", "shop/db"
ASKED = f"{CART} {DB} 5432/tcp"
# The proxy is what listens in the pod anyway; the mesh's own packets, of another user, would pass.
PROXY = """
add table inet mesh
add chain inet mesh out { type nat hook output priority -100; }
add rule inet mesh out meta l4proto PROTOCOL redirect to :8080
"""
DROP = """
add table inet hardening
add chain inet hardening passing { type filter hook forward priority -10; }
add rule inet hardening passing tcp dport 5432 drop
"""


@pytest.fixture(scope="module")
def both_families() -> Iterator[Lab]:
    with Lab.up(variant="dualstack", fixers=False) as lab:
        yield lab


@pytest.fixture
def meshed(both_families: Lab) -> Lab:
    both_families.heal()
    rules(both_families, CART, PROXY.replace("PROTOCOL", "tcp"))
    return both_families


def rules(lab: Lab, place: str, words: str) -> None:
    assert lab.exec(place, "nft", "-f", "-", input=words).returncode == 0


async def test_what_reaches_the_target_past_the_proxy_is_well_over_both_families(meshed: Lab) -> None:
    told = (await ask(meshed.environment(), ASKED)).diagnosis
    assert told.verdict == "healthy", (told.summary, told.blind, told.causes)
    tried = [one for one in told.facts if isinstance(one, ProbeResult) and (one.pod, one.port) == (CART, 5432)]
    assert {":" in one.target_address for one in tried} == {False, True}
    assert all(one.past_proxy and one.answered == one.sent == 2 for one in tried), tried


async def test_a_proxy_that_answers_hides_no_rule_that_drops(meshed: Lab) -> None:
    rules(meshed, "node-b", DROP)
    told = (await ask(meshed.environment(), ASKED)).diagnosis
    assert {(one.rule, one.node) for one in told.causes} == {("host_firewall_drops_forward", "node-b")}, told.summary
    assert all("tcp dport 5432 drop" in one.text for one in told.causes)


async def test_a_target_that_refuses_is_heard_past_the_proxy(meshed: Lab) -> None:
    told = (await ask(meshed.environment(), f"{CART} {DB} 9999/tcp")).diagnosis
    assert {one.rule for one in told.causes} == {"target_not_listening"}, told.summary


async def test_datagrams_that_somebody_else_answers_are_not_called_well(both_families: Lab) -> None:
    both_families.heal()
    other = next(pod["addresses"][0] for pod in both_families.status()["pods"] if pod["name"] == "shop/web")
    elsewhere = PROXY.replace("PROTOCOL redirect to", f"udp meta nfproto ipv4 dnat ip to {other}")
    rules(both_families, CART, elsewhere)
    told = (await ask(both_families.environment(), f"{CART} {DB} 5432/udp")).diagnosis
    assert told.verdict == "unknown", told.summary
    reasons = [one.reason for one in told.blind if isinstance(one, Blind) and one.look == "packets"]
    assert any("no such packet left shop/cart" in one for one in reasons), told.blind
