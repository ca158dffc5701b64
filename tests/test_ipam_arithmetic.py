"""Would a node get an address? Our arithmetic against an allocator that goes and gets one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.sources import ipam
from facts import Pool, PoolUsage
from tests.calico_allocator import Allocator, NoAddress, empty_block

NODES = ("a", "b", "c")
WHY = {"limit": "block_limit", "failed": "auto_allocate", "No more": "strict_affinity"}


@st.composite
def allocators(draw: st.DrawFn) -> Allocator:
    """Two small pools, blocks of their size and of another one, some full, some empty, some addresses reserved."""
    pools = draw(
        st.lists(
            st.sampled_from([("10.9.0.0/27", 29), ("10.9.0.0/28", 30), ("10.9.1.0/28", 30), ("fd00::/123", 125)]),
            min_size=1,
            max_size=2,
            unique=True,
        ).filter(lambda found: len({":" in cidr for cidr, _ in found}) == 1 and not _overlap(found))
    )
    allocator = Allocator(
        pools=sorted(pools),
        strict_affinity=draw(st.booleans()),
        auto_allocate=draw(st.sampled_from([True, True, True, False])),
        block_limit=draw(st.integers(1, 4)),
        reclaims=draw(st.booleans()),
    )
    odd = ["10.9.0.0/29", "10.9.0.8/30", "10.9.0.16/28", "10.9.1.4/31"] if ":" not in pools[0][0] else []
    for cidr in [*allocator._slots(), *odd]:
        held = draw(st.sampled_from(["", "empty", "half", "full", "full"]))
        if not held or cidr in allocator.blocks:
            continue
        spec = empty_block(cidr, draw(st.sampled_from([*NODES, ""])))
        if held != "empty":
            count = len(spec["unallocated"])
            keep = 0 if held == "full" else max(count // 2, 1)
            spec["unallocated"] = spec["unallocated"][count - keep :] if keep else []
            spec["allocations"] = [None if one in spec["unallocated"] else 0 for one in range(count)]
            spec["attributes"] = [{"handle_id": "x", "secondary": {}}]
        allocator.blocks[cidr] = spec
    whole = [str(one) for one in allocator._slots()]
    allocator.reserved = draw(st.lists(st.sampled_from([*whole, "10.9.0.1/32", "10.9.1.0/31"]), max_size=3))
    return allocator


def _overlap(pools: list[tuple[str, int]]) -> bool:
    return {cidr for cidr, _ in pools} == {"10.9.0.0/27", "10.9.0.0/28"}


def used(allocator: Allocator, node: str) -> list[PoolUsage]:
    pools = [Pool(name=cidr, cidr=cidr, block_size=size) for cidr, size in allocator.pools]
    reserved = ipam.reservations([{"spec": {"reservedCIDRs": allocator.reserved}}])
    return [
        ipam.usage(
            pool, node, allocator.blocks.values(), reserved, among=pools, nodes=3,
            version="v3.32.1" if allocator.reclaims else "v3.31.7", strict_affinity=allocator.strict_affinity,
            auto_allocate=allocator.auto_allocate, block_limit=allocator.block_limit,
        )
        for pool in pools
    ]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(allocators(), st.sampled_from(NODES))
def test_a_node_gets_an_address_where_we_say_it_would(allocator: Allocator, node: str) -> None:
    found = used(allocator, node)
    before = copy.deepcopy(allocator.blocks)
    how, why = ipam.next_address(found)
    try:
        address = allocator.assign(node)
    except NoAddress as error:
        expected = next((reason for words, reason in WHY.items() if words in str(error)), "full")
        assert how == "" and why in (expected, "full"), error
        if why == "full":  # and then nothing at all is left, whatever is allowed
            allocator.strict_affinity, allocator.auto_allocate, allocator.block_limit = False, True, 99
            with pytest.raises(NoAddress):
                allocator.assign(node)
        return
    (cidr,) = [one for one, spec in allocator.blocks.items() if spec != before.get(one)]
    assert (why, address != "") == ("", True)
    owner = before[cidr]["affinity"] if cidr in before else None
    met = {"own": owner == f"host:{node}", "new": cidr not in before}
    assert met.get(how, cidr in before and owner != f"host:{node}"), (how, cidr)


@settings(max_examples=100, deadline=None)
@given(allocators(), st.sampled_from(NODES))
def test_the_rules_accuse_no_pool_that_gives_an_address(allocator: Allocator, node: str) -> None:
    """What the failure modes rest on: `exhausted` of all pools, and what alone forbids what is left."""
    found = ipam.together(used(allocator, node))
    try:
        allocator.assign(node)
    except NoAddress as error:
        assert all(one.exhausted and not one.other_pool for one in found)
        (forbids,) = {one.forbids for one in found}
        assert forbids in ("", next((reason for words, reason in WHY.items() if words in str(error)), ""))
        return
    assert any(not one.exhausted for one in found)


def test_blocks_of_another_size_are_not_seen_by_who_takes_or_borrows_one() -> None:
    """A pool that was made again with smaller blocks: the old block's free addresses are for its own node alone."""
    pool = Pool(name="small", cidr="10.9.0.0/28", block_size=30)
    old: dict[str, Any] = empty_block("10.9.0.0/28", "a")
    owner = ipam.usage(pool, "a", [old], [], nodes=2, version="v3.32.1", strict_affinity=False)
    other = ipam.usage(pool, "b", [old], [], nodes=2, version="v3.32.1", strict_affinity=False)
    assert (owner.free_on_node, other.free_elsewhere, other.blocks_taken, other.claimable) == (16, 0, 4, 4)
    assert ipam.next_address([other]) == ("new", "")
