"""What `ipam plan` says does is enough for an allocator that gives every address out, and nothing smaller is."""

from __future__ import annotations

import json
import random
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.asking import Parser
from bot.errors import UserError
from bot.ipam import plan
from bot.ipam.plan import Fit, Need
from bot.sources import ipam
from bot.told import Told
from tests.calico_allocator import Allocator, NoAddress

BASE = {4: "10.0.0.0", 6: "fd00::"}


def needs() -> st.SearchStrategy[Need]:
    return st.builds(
        Need,
        nodes=st.integers(1, 7),
        pods_per_node=st.integers(1, 40),
        tunnels=st.integers(0, 2),
        family=st.sampled_from([4, 6]),
        block_limit=st.integers(1, 5),
    )


def holds(need: Need, cidr: str, block_size: int, *, strict: bool, seed: int = 0) -> bool:
    """Does every node get all its addresses, in whatever order they are asked for? They are asked for."""
    allocator = Allocator(
        pools=[(cidr, block_size)], strict_affinity=strict, block_limit=need.block_limit, reclaims=False
    )
    asked = [f"node-{number}" for number in range(need.nodes)] * need.addresses_per_node
    random.Random(seed).shuffle(asked)
    try:
        given_out = [allocator.assign(node) for node in asked]
    except NoAddress:
        return False
    assert len(set(given_out)) == len(asked)
    return True


@settings(max_examples=60, deadline=None)
@given(needs(), st.integers(0, 2**16))
def test_the_pool_that_is_best_holds_all_and_none_half_as_large_does(need: Need, seed: int) -> None:
    found = plan.fits(need)
    if not found:
        small = min(ipam.SIZES[need.family])
        assert need.addresses_per_node > need.block_limit << (plan.BITS[need.family] - small)
        return
    best = found[0]
    assert holds(need, f"{BASE[need.family]}/{best.prefix}", best.block_size, strict=True, seed=seed)
    bits = plan.BITS[need.family]
    for size in range(best.prefix + 1, bits + 1):  # every block size that fits into half of it, but for many blocks
        few = -(-need.addresses_per_node // (1 << (bits - size))) <= plan.MANY
        assert not (few or best.blocks_per_node > plan.MANY) or not holds(
            need, f"{BASE[need.family]}/{best.prefix + 1}", size, strict=True, seed=seed
        )


@settings(max_examples=60, deadline=None)
@given(needs(), st.integers(0, 2**16), st.data())
def test_whether_a_pool_does_is_what_an_allocator_meets(need: Need, seed: int, data: st.DataObject) -> None:
    bits = plan.BITS[need.family]
    prefix = data.draw(st.integers(bits - 9, bits - 2))
    size = data.draw(st.integers(max(prefix, bits - 6), bits))
    network = ip_network(f"{BASE[need.family]}/{prefix}")
    found = plan.verdict(need, network, size)
    assert holds(need, str(network), size, strict=True, seed=seed) is found.does
    if found.borrowing:
        assert holds(need, str(network), size, strict=False, seed=seed)
    # the most it does for, and not one more
    most = Need(**{**msgspec.structs.asdict(need), "nodes": max(found.nodes, 1)})
    assert not found.nodes or plan.verdict(most, network, size).does
    more = Need(**{**msgspec.structs.asdict(need), "nodes": found.nodes + 1})
    assert not plan.verdict(more, network, size).does
    fuller = Need(**{**msgspec.structs.asdict(need), "pods_per_node": found.pods_per_node + 1})
    assert not plan.verdict(fuller, network, size).does
    if found.pods_per_node:
        full = Need(**{**msgspec.structs.asdict(need), "pods_per_node": found.pods_per_node})
        assert plan.verdict(full, network, size).does


@settings(max_examples=100, deadline=None)
@given(needs())
def test_two_pools_hold_what_one_does_with_fewer_addresses(need: Need) -> None:
    for fit in plan.fits(need)[:2]:
        two = plan.in_two(fit, need.family)
        if two is None:
            continue
        assert sum(1 << (fit.block_size - prefix) for prefix in two) >= fit.blocks
        assert sum(1 << (plan.BITS[need.family] - prefix) for prefix in two) < fit.addresses


# -- as people ask ----------------------------------------------------------------------------------------------------


def pool(name: str, cidr: str, **spec: Any) -> dict[str, Any]:
    return {"kind": "IPPool", "metadata": {"name": name}, "spec": {"cidr": cidr, **spec}}


def asked(words: str, *pools: dict[str, Any], **configuration: Any) -> Told:
    parser = Parser(prog="ipam plan")
    plan.add_words(parser)
    config = {"metadata": {"name": "default"}, "spec": configuration}
    return plan.plan(parser.parse_args(words.split()), pools, [config])


def best(told: Told) -> Fit:
    return Fit(**told.data["best"])


def test_a_hundred_nodes_as_full_as_kubelets_are() -> None:
    told = asked("--nodes 100 --pods-per-node 110")
    assert str(told.headline) == "A pool of /18 with blocks of /25 does for 100 nodes with 110 pods each."
    assert (best(told).blocks_per_node, best(told).blocks, best(told).idle_per_node) == (1, 100, 17)
    assert "Each node takes 1 of its addresses for itself" in str(told.notes[0])
    lines = told.text.splitlines()
    assert any("| /25 " in line and "<- the best" in line for line in lines)
    assert not any("| /30 " in line for line in lines)  # would be more than 20 blocks a node


def test_headroom_is_room_for_more_nodes() -> None:
    assert asked("--nodes 100 --pods-per-node 110 --headroom 29").data["need"]["nodes"] == 129
    assert best(asked("--nodes 100 --pods-per-node 110 --headroom 29")).prefix == 17
    assert asked("--nodes 3 --pods-per-node 1 --headroom 1").data["need"]["nodes"] == 4


def test_tunnels_are_counted_as_the_pools_of_the_cluster_have_them() -> None:
    def tunnels(words: str, *pools: dict[str, Any]) -> int:
        return int(asked(f"--nodes 3 --pods-per-node 64 {words}", *pools).data["need"]["tunnels"])

    plain, vxlan, ipip = pool("a", "10.0.0.0/16"), pool("b", "10.1.0.0/16", vxlanMode="CrossSubnet"), pool(
        "c", "10.2.0.0/16", ipipMode="Always"
    )  # fmt: skip
    assert tunnels("") == 1  # where there is no pool yet: as the default pool of every installation
    assert (tunnels("", plain), tunnels("", vxlan), tunnels("", vxlan, ipip)) == (0, 1, 2)
    assert tunnels("--pool a", plain, vxlan) == 0
    assert tunnels("--pool 10.9.0.0/16", plain, vxlan) == 1
    assert (tunnels("--encapsulation none", vxlan), tunnels("--encapsulation ipip --wireguard", plain)) == (0, 2)
    assert tunnels("--encapsulation ipip --family 6") == 0


def test_sixty_four_pods_do_not_fit_into_a_block_of_64_with_a_tunnel() -> None:
    with_tunnel = asked("--nodes 4 --pods-per-node 64 --pool 10.0.0.0/24")
    assert str(with_tunnel.headline) == "10.0.0.0/24 with blocks of /26 does not do for 4 nodes with 64 pods each."
    assert (with_tunnel.data["pool"]["nodes"], with_tunnel.data["pool"]["pods_per_node"]) == (2, 63)
    assert with_tunnel.mark == "cause"
    without = asked("--nodes 4 --pods-per-node 64 --pool 10.0.0.0/24 --encapsulation none")
    assert without.data["pool"]["does"] and without.mark == "healthy"


def test_a_pool_that_does_by_borrowing_only() -> None:
    told = asked("--nodes 5 --pods-per-node 40 --pool small", pool("small", "10.0.0.0/24", blockSize=26))
    assert (told.data["pool"]["does"], told.data["pool"]["borrowing"]) == (False, True)
    assert any("nodes borrow them of each other" in str(note) for note in told.notes)


def test_the_limit_of_the_cluster_counts() -> None:
    assert best(asked("--nodes 2 --pods-per-node 500 --encapsulation none")).blocks_per_node <= 20
    limited = asked("--nodes 2 --pods-per-node 500 --encapsulation none", maxBlocksPerHost=1)
    assert (best(limited).block_size, best(limited).blocks_per_node) == (23, 1)
    assert best(asked("--nodes 2 --pods-per-node 500 --max-blocks 2", maxBlocksPerHost=1)).blocks_per_node <= 2
    none = asked("--nodes 2 --pods-per-node 5000 --max-blocks 1")
    assert none.data["best"] is None and none.mark == "cause" and none.text == ""
    assert str(none.headline) == "No pool does for 2 nodes with 5000 pods each: a node may have 1 blocks."


def test_ipv6() -> None:
    told = asked("--nodes 100 --pods-per-node 110 --family 6")
    assert str(told.headline) == "A pool of /114 with blocks of /121 does for 100 nodes with 110 pods each."
    assert any("a /64 with the same blocks is never short of them" in str(note) for note in told.notes)
    wide = asked("--nodes 100 --pods-per-node 110 --pool fd00::/48")
    assert wide.data["pool"]["blocks"] == 2**74 and wide.data["pool"]["does"]
    assert json.loads(wide.form("json"))["pool"]["blocks"] == 2**74


def test_what_no_private_range_holds() -> None:
    told = asked("--nodes 1000000 --pods-per-node 110")
    assert str(told.headline).startswith("No private IPv4 range does for 1000000 nodes") and told.mark == "cause"


def test_what_wastes_is_told() -> None:
    spare = asked("--nodes 65 --pods-per-node 60 --encapsulation none")
    assert any("Two pools, of /20 and /26, hold the same with 4032 addresses fewer." in str(one) for one in spare.notes)
    small = asked("--nodes 129 --pods-per-node 110")
    assert (best(small).prefix, best(small).blocks_per_node) == (17, 1)
    assert any("A pool of /18 does, too, with blocks of /28: 7 blocks a node, so every node has 896 routes" in str(one)
               for one in small.notes)  # fmt: skip
    many = asked("--nodes 3 --pods-per-node 70000 --encapsulation none")
    assert best(many).blocks_per_node == 18
    assert any("Each node has 18 blocks, so every node has 36 routes to blocks of others." in str(one)
               for one in many.notes)  # fmt: skip
    idle = asked("--nodes 3 --pods-per-node 33 --encapsulation none --max-blocks 1")
    assert any("48 % of each node's addresses stay idle" in str(one) for one in idle.notes)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("--nodes 0 --pods-per-node 1", "--nodes 0: give a number from 1"),
        ("--nodes 1 --pods-per-node 1 --headroom -1", "--headroom -1: give percents"),
        ("--nodes 1 --pods-per-node 1 --pool 10.0.0.1/24", "did you mean 10.0.0.0/24?"),
        ("--nodes 1 --pods-per-node 1 --pool defalt", "neither a pool of this cluster (default)"),
        ("--nodes 1 --pods-per-node 1 --pool 10.0.0.0/24 --block-size 33", "Calico takes 20 to 32 for IPv4"),
        ("--nodes 1 --pods-per-node 1 --pool 10.0.0.0/28", "Give --block-size 28 or more"),
        ("--nodes 1 --pods-per-node 1 --pool 10.0.0.0/24 --family 6", "is not of --family 6"),
        ("--nodes 1", "the following arguments are required: --pods-per-node"),
        ("--nodes 1 --pods-per-nod 1", "--pods-per-node"),
    ],
)
def test_what_makes_no_sense_gets_the_nearest_form(words: str, hint: str) -> None:
    with pytest.raises(UserError) as error:
        asked(words, pool("default", "10.244.0.0/16"))
    assert hint.lower() in error.value.sentence.lower()
