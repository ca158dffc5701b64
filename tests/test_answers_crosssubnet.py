"""Packets between nodes of one subnet need no tunnel: such pairs are healthy, and their routes' wounds are named."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from facts import Leg
from lab.client import Lab
from lab.faults import load
from tests import exhaustive
from tests.asking import ask, words_for

PODS = ("shop/cart", "shop/web", "shop/db", "shop/queue", "shop/mail", "shop/search")
MODES = ("route_missing", "route_wrong_next_hop", "route_blackholed", "allocation_owner_mismatch")
NEAR, FAR = ("shop/cart", "shop/db"), ("shop/cart", "shop/mail")  # node-c alone is in another subnet


@pytest.fixture(scope="module")
def two_subnets() -> Iterator[Lab]:
    """node-a and node-b in one subnet, node-c in another; the pool tunnels between subnets only."""
    with Lab.up(variant="crosssubnet+two-subnets") as lab:
        yield lab


@pytest.fixture
def lab(two_subnets: Lab) -> Lab:
    two_subnets.heal()
    return two_subnets


@pytest.mark.parametrize("source", PODS)
async def test_healthy_pairs_are_called_healthy(lab: Lab, source: str) -> None:
    for target in (pod for pod in PODS if pod != source):
        diagnosis = (await ask(lab.environment(), f"{source} {target} 8080/tcp")).diagnosis
        found = (diagnosis.verdict, diagnosis.causes, diagnosis.warnings, diagnosis.blind)
        assert found == ("healthy", (), (), ()), (target, diagnosis)


@pytest.mark.parametrize(("pair", "how"), [(NEAR, "direct"), (FAR, "vxlan")])
async def test_a_leg_says_how_its_packets_travel(lab: Lab, pair: tuple[str, str], how: str) -> None:
    diagnosis = (await ask(lab.environment(), " ".join(pair))).diagnosis
    assert {fact.encapsulation for fact in diagnosis.facts if isinstance(fact, Leg)} == {how}
    drawn = {hop.stage for path in diagnosis.path for hop in path.hops}
    assert ("source tunnel" in drawn) == (how == "vxlan")


@pytest.mark.parametrize(
    ("mode", "where", "pair"),
    exhaustive.one_of_each(
        [(mode, where, pair) for pair in (NEAR, FAR)] for mode in MODES for where in load(mode).WHERE
    ),
)
async def test_a_wound_between_the_nodes_is_named(lab: Lab, mode: str, where: str, pair: tuple[str, str]) -> None:
    told = lab.inflict(mode, *pair, where=where)
    diagnosis = (await ask(lab.environment(), words_for(told))).diagnosis
    assert [(cause.rule, cause.node) for cause in diagnosis.causes] == [(mode, told["node"])], diagnosis


async def test_the_peer_s_mac_counts_without_a_tunnel_too(lab: Lab) -> None:
    told = lab.inflict("underlay_neighbor_wrong", *NEAR)
    diagnosis = (await ask(lab.environment(), words_for(told))).diagnosis
    assert [(cause.rule, cause.node) for cause in diagnosis.causes] == [("underlay_neighbor_wrong", told["node"])]


@pytest.mark.parametrize("mode", ["neighbor_wrong_mac", "fdb_entry_missing", "vxlan_device_down"])
async def test_the_tunnel_s_wounds_are_no_cause_where_it_is_not_used(lab: Lab, mode: str) -> None:
    told = lab.inflict(mode, *NEAR)
    diagnosis = (await ask(lab.environment(), words_for(told))).diagnosis
    assert (diagnosis.verdict, diagnosis.causes) == ("healthy", ()), diagnosis


async def test_a_missing_tunnel_address_hurts_only_those_who_tunnel(lab: Lab) -> None:
    told = lab.inflict("tunnel_address_missing", *NEAR)
    near = (await ask(lab.environment(), words_for(told))).diagnosis
    assert (near.verdict, near.causes) == ("healthy", ()), near
    far = (await ask(lab.environment(), " ".join(FAR))).diagnosis
    assert [(cause.rule, cause.node) for cause in far.causes] == [("tunnel_address_missing", told["node"])]


@pytest.mark.parametrize("where", load("cross_subnet_asymmetric").WHERE)
async def test_nodes_that_disagree_on_their_subnet(lab: Lab, where: str) -> None:
    """A strict filter on the way drops the packets; a loose one lets them pass, and the answer only warns."""
    told = lab.inflict("cross_subnet_asymmetric", *NEAR, where=where)
    strict = (await ask(lab.environment(), words_for(told))).diagnosis
    assert [(cause.rule, cause.node) for cause in strict.causes] == [("cross_subnet_asymmetric", told["node"])]
    for node in ("node-a", "node-b"):
        lab.exec(node, "sysctl", "-w", "net.ipv4.conf.all.rp_filter=2")
    loose = (await ask(lab.environment(), words_for(told))).diagnosis
    assert (loose.verdict, loose.causes) == ("healthy", ()), loose
    assert [(cause.rule, cause.node) for cause in loose.warnings] == [("cross_subnet_asymmetric", told["node"])]
