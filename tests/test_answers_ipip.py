"""Under IPIP every wound is named first and right, by packets that were wrapped and lost on a real kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from facts import Leg, Sighting
from lab.client import Lab
from lab.faults import load, names, variant
from tests import exhaustive
from tests.asking import ask, told, words_for
from tests.test_firewall_trace import needs
from tests.test_stages import ruleset

IPIP = "ipip"
# One for each kind of look; `make score` inflicts them all.
ANYWHERE = (
    "foreign_route_to_pod",
    "ip_forwarding_off",
    "path_mtu_too_small",
    "pod_route_missing",
    "route_blackholed",
    "routing_rule_diverts",
    "underlay_neighbor_wrong",
    "underlay_unreachable",
)
WOUNDS = [[(mode, where) for where in load(mode).WHERE] for mode in names() if variant(mode) == IPIP]
WOUNDS += [[(mode, load(mode).WHERE[-1])] for mode in ANYWHERE]


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    with Lab.up(variant=IPIP, fixers=False) as lab:
        yield lab


async def test_packets_of_pods_and_of_nodes_are_seen_wrapped(shared: Lab) -> None:
    """A healthy answer that had not looked into IPIP would prove nothing of it."""
    for source in ("shop/cart", "node-a"):
        diagnosis = (await ask(shared.environment(), f"{source} shop/db 8080/tcp")).diagnosis
        assert (diagnosis.verdict, diagnosis.blind) == ("healthy", ()), diagnosis.summary
        legs = [fact for fact in diagnosis.facts if isinstance(fact, Leg)]
        assert {leg.encapsulation for leg in legs} == {"ipip"}
        seen = [fact for fact in diagnosis.facts if isinstance(fact, Sighting)]
        assert {fact.outer_target for fact in seen} == {"172.30.0.11", "172.30.0.12"}
        assert all(fact.seen > 0 and not fact.astray for fact in seen)


@needs("nft")
@pytest.mark.parametrize(
    ("device", "rule", "last", "bad", "mode"),
    [
        ("eth0", "ip protocol 4 drop", "underlay", "target tunnel", "host_firewall_drops_local"),
        ("tunl0", "tcp dport 5432 drop", "underlay", "target tunnel", "host_firewall_drops_forward"),
    ],
)
async def test_a_rule_at_a_device_is_named_and_the_loss_placed_by_what_was_seen_in_ipip(
    shared: Lab, device: str, rule: str, last: str, bad: str, mode: str
) -> None:
    done = shared.exec("node-b", "nft", "-f", "-", input=ruleset("ingress", device, rule))
    assert done.returncode == 0, done.stderr
    try:
        diagnosis = (await ask(shared.environment(), "shop/cart shop/db 5432/tcp")).diagnosis
    finally:
        shared.exec("node-b", "nft", "delete", "table", "netdev", "corp")
    assert (diagnosis.path[0].last_good, diagnosis.path[0].first_bad) == (last, bad)
    assert [(cause.rule, cause.node) for cause in diagnosis.causes] == [(mode, "node-b")]


@pytest.mark.parametrize(("mode", "where"), exhaustive.one_of_each(WOUNDS))
async def test_every_wound_is_named_first_on_its_node(shared: Lab, mode: str, where: str) -> None:
    shared.heal()
    inflicted = shared.inflict(mode, where=where)
    diagnosis = (await ask(shared.environment(), words_for(inflicted))).diagnosis
    assert diagnosis.verdict == "cause", diagnosis.summary
    assert [(cause.rule, cause.node) for cause in told(diagnosis, mode)] == [(mode, inflicted["node"])]
    shared.heal()
    assert shared.mesh()["unanswered"] == []
