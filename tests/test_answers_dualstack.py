"""Wounds that only a dual stack cluster can have: each is named first and right, on a real kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from facts import CalicoNode, Endpoint, Leg
from lab.client import Lab
from lab.faults import families, load, names, variant
from tests import exhaustive
from tests.asking import ask, told, words_for
from tests.test_firewall_trace import needs
from tests.test_stages import ruleset

DUALSTACK = "dualstack"
# One for each kind of look; `make score` inflicts them all.
OF_EITHER = (
    "fdb_entry_wrong_node",
    "ip_forwarding_off",
    "neighbor_missing",
    "pod_gateway_mac_wrong",
    "pod_route_missing",
    "route_blackholed",
    "route_wrong_next_hop",
    "routing_rule_diverts",
    "tunnel_address_missing",
    "underlay_drops_vxlan",
    "underlay_neighbor_wrong",
    "underlay_unreachable",
    "vxlan_device_down",
    "vxlan_local_address_wrong",
)
WOUNDS = [[(mode, where) for where in load(mode).WHERE] for mode in names() if variant(mode) == DUALSTACK]


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    with Lab.up(variant=DUALSTACK) as lab:
        yield lab


@pytest.mark.parametrize(("mode", "where"), exhaustive.one_of_each(WOUNDS))
async def test_every_wound_is_named_first_on_its_node(shared: Lab, mode: str, where: str) -> None:
    shared.heal()
    inflicted = shared.inflict(mode, where=where, family=families(mode)[0])
    diagnosis = (await ask(shared.environment(), words_for(inflicted))).diagnosis
    assert diagnosis.verdict == "cause", diagnosis.summary
    assert [(cause.rule, cause.node) for cause in told(diagnosis, mode)] == [(mode, inflicted["node"])]


@pytest.mark.parametrize("mode", OF_EITHER)
async def test_a_wound_of_ipv6_is_named_and_ipv4_is_not_accused(shared: Lab, mode: str) -> None:
    shared.heal()
    inflicted = shared.inflict(mode, where=load(mode).WHERE[-1], family=6)
    diagnosis = (await ask(shared.environment(), words_for(inflicted))).diagnosis
    assert [cause.rule for cause in told(diagnosis, mode)] == [mode], diagnosis
    assert {cause.flow.rsplit(" ", 1)[-1] for cause in told(diagnosis, mode)} <= {"IPv6", ""}
    of_ipv4 = [hop.state for path in diagnosis.path if path.flow.endswith("IPv4") for hop in path.hops]
    assert "bad" not in of_ipv4


async def test_the_same_pair_is_healthy_in_both_families_once_the_wound_is_gone(shared: Lab) -> None:
    shared.heal()
    diagnosis = (await ask(shared.environment(), "shop/cart shop/db 5432/tcp")).diagnosis
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ()), diagnosis.summary
    assert {path.flow.rsplit(" ", 1)[-1] for path in diagnosis.path} == {"IPv4", "IPv6"}


@pytest.mark.parametrize(
    ("mode", "where"),
    [
        ("ip_forwarding_off", "source"), ("neighbor_wrong_mac", "target"), ("pod_route_missing", "target"),
        ("tunnel_address_not_owned", "source"), ("vxlan_device_down", "target"),
    ],
)  # fmt: skip
async def test_a_wound_of_one_family_is_told_of_that_family_alone(shared: Lab, mode: str, where: str) -> None:
    shared.heal()
    inflicted = shared.inflict(mode, where=where, family=6)
    diagnosis = (await ask(shared.environment(), words_for(inflicted))).diagnosis
    (cause,) = told(diagnosis, mode)
    assert (cause.rule, cause.node) == (mode, inflicted["node"]) and cause.flow.endswith("over IPv6")
    assert all(hop.state == "ok" for path in diagnosis.path if path.flow.endswith("IPv4") for hop in path.hops)


@pytest.mark.parametrize(
    ("words", "where", "node"),
    [
        ("node-a shop/db 5432/tcp", "source", "node-a"),
        ("node-a shop/db 5432/tcp", "target", "node-b"),
        ("node-b shop/cart", "source", "node-a"),
        ("shop/cart shop/db 5432/tcp", "source", "node-a"),
    ],
)
async def test_a_tunnel_without_ipv6_has_that_name_whoever_sends(
    shared: Lab, words: str, where: str, node: str
) -> None:
    """The address it lost with it is its echo, for a node that sends under that address as well."""
    shared.heal()
    shared.inflict("ipv6_disabled", "shop/cart", "shop/db", where, family=6)
    diagnosis = (await ask(shared.environment(), words)).diagnosis
    assert [(one.rule, one.node, one.leg) for one in diagnosis.causes] == [("ipv6_disabled", node, "both")]


@pytest.mark.parametrize("shape", ["ipv6-without-tunnel", "crosssubnet"])
def test_an_uplink_without_ipv6_has_that_name_where_no_tunnel_tells_which_it_is(shape: str) -> None:
    """Nothing but IPv4's address is left to tell the uplink by."""
    with Lab.up(variant=f"{DUALSTACK}+{shape}", fixers=False) as lab:
        for where, node in (("source", "node-a"), ("target", "node-b")):
            lab.heal()
            lab.inflict("uplink_ipv6_disabled", where=where, family=6)
            diagnosis = asyncio.run(ask(lab.environment(), "shop/cart shop/db 5432/tcp")).diagnosis
            assert [(one.rule, one.node, one.leg) for one in diagnosis.causes] == [
                ("uplink_ipv6_disabled", node, "both")
            ]
            assert [one.look for one in diagnosis.blind] == ["link"], "that the address is gone"


async def test_a_pod_and_a_node_are_found_by_their_second_address(shared: Lab) -> None:
    """The API finds a pod by its first address only; to call the other one nobody's would be a wrong accusation."""
    shared.heal()
    whole = (await ask(shared.environment(), "shop/cart shop/db")).diagnosis
    address = next(one.address6 for one in whole.facts if isinstance(one, Endpoint) and one.name == "shop/db")
    node = next(one for one in whole.facts if isinstance(one, CalicoNode) and (one.name, one.family) == ("node-b", 6))
    for words, name in (
        (f"shop/cart {address}", "shop/db"),
        (f"shop/cart {address.upper()}", "shop/db"),
        (f"shop/cart {node.address}", "node-b"),
        (f"{node.address} shop/cart", "node-b"),
    ):
        diagnosis = (await ask(shared.environment(), words)).diagnosis
        assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ()), words
        assert name in {one.name for one in diagnosis.facts if isinstance(one, Endpoint)}
        assert {leg.family for leg in diagnosis.facts if isinstance(leg, Leg)} == {6}


@needs("nft")
async def test_a_loss_in_one_family_is_placed_in_that_family(shared: Lab) -> None:
    shared.heal()
    no_ipv6 = "@nh,0,8 set 0x50"  # another version in its first byte: no rule drops such a packet, and the kernel does
    rule = ruleset("ingress", "vxlan-v6.calico", f"tcp dport 5432 {no_ipv6}")
    done = shared.exec("node-b", "nft", "-f", "-", input=rule)
    assert done.returncode == 0, done.stderr
    try:
        diagnosis = (await ask(shared.environment(), "shop/cart shop/db 5432/tcp")).diagnosis
    finally:
        shared.exec("node-b", "nft", "delete", "table", "netdev", "corp")
    families = {leg.flow: leg.family for leg in diagnosis.facts if isinstance(leg, Leg)}
    places = {(families[leg.flow], leg.direction): (leg.last_good, leg.first_bad) for leg in diagnosis.path}
    assert places[6, "forward"] == ("target tunnel", "target node")
    assert {bad for (family, _), (_, bad) in places.items() if family == 4} == {""}
