"""Releasing an address changes a block and a handle exactly as Calico itself does; recordings say how that is."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixes.release import counted_down, holding, released, wrong
from tests.recordings import load

NOW = datetime(2026, 11, 22, 21, 2, 10, tzinfo=UTC)
OLD = load("v3.32.1/loose")
COOLDOWN = load("master-87c15906f20c/loose")


def blocks(files: dict[str, Any], name: str) -> dict[str, Any]:
    return {one["spec"]["cidr"]: one for one in files[name]["items"]}


def test_a_block_after_a_release_is_what_calicoctl_made_of_it() -> None:
    """Five leaked addresses, released by calicoctl v3.32.1 in three writes where we need five."""
    before, after = (
        blocks(OLD, "leaks/1-before/ipamblocks.json"),
        blocks(OLD, "leaks/3-from-report/after/ipamblocks.json"),
    )
    row = {
        "10.245.0.64/26": ("10.245.0.67", "10.245.0.68", "10.245.0.69"),
        "10.245.0.0/26": ("10.245.0.8", "10.245.0.7"),
    }
    for cidr, addresses in row.items():
        ours = before[cidr]
        for address in addresses:
            ours = released(ours, address, now=NOW, cooldown_s=0)
        assert ours["spec"]["sequenceNumber"] == before[cidr]["spec"]["sequenceNumber"] + len(addresses)
        assert _without(ours["spec"], "sequenceNumber") == _without(after[cidr]["spec"], "sequenceNumber")
        assert ours["metadata"] == before[cidr]["metadata"]


def test_with_a_cooldown_the_address_is_kept_back_as_calico_keeps_it() -> None:
    """Recorded of a CNI DEL, which leaves the sequence number; a release by address sets it (calico.md 2.1)."""
    cidr = "10.244.174.128/26"
    before = blocks(COOLDOWN, "ip-cooldown/ipamblocks-before.json")[cidr]
    after = blocks(COOLDOWN, "ip-cooldown/ipamblocks-after-del.json")[cidr]["spec"]
    ours = released(before, "10.244.174.130", now=NOW, cooldown_s=60)["spec"]
    numbers = {**after["sequenceNumberForAllocation"], "2": before["spec"]["sequenceNumber"]}
    assert ours == {**after, "sequenceNumberForAllocation": numbers}
    assert holding(ours, "10.244.174.130").in_cooldown


def test_a_cooldown_that_is_over_ends_with_the_next_release() -> None:
    cidr = "10.244.174.128/26"
    cooling = blocks(COOLDOWN, "ip-cooldown/ipamblocks-after-del.json")[cidr]
    soon = released(cooling, "10.244.174.129", now=NOW + timedelta(seconds=59), cooldown_s=60)["spec"]
    assert [holding(soon, f"10.244.174.{last}").in_cooldown for last in (129, 130)] == [True, True]
    later = released(cooling, "10.244.174.129", now=NOW + timedelta(seconds=60), cooldown_s=60)["spec"]
    assert [holding(later, f"10.244.174.{last}").in_cooldown for last in (129, 130)] == [True, False]
    assert later["unallocated"][-1] == 2


def test_without_a_cooldown_what_still_cools_down_is_freed_at_once() -> None:
    """ipCooldownSeconds was set back to 0: the newer scheme, with the result of the older."""
    cooling = blocks(COOLDOWN, "ip-cooldown/ipamblocks-after-del.json")["10.244.174.128/26"]
    ours = released(cooling, "10.244.174.129", now=NOW, cooldown_s=0)["spec"]
    assert ours["unallocated"][-2:] == [1, 2]
    assert [one["handle_id"] for one in ours["attributes"]] == ["vxlan-tunnel-addr-node-a"]


def test_a_handle_is_counted_down_by_one_and_ends_with_its_last_address() -> None:
    handle = {"metadata": {"name": "h"}, "spec": {"handleID": "H", "block": {"a/26": 2, "b/26": 1}, "newer": 1}}
    first = counted_down(handle, "a/26")
    assert first is not None and first["spec"] == {"handleID": "H", "block": {"a/26": 1, "b/26": 1}, "newer": 1}
    second = counted_down(first, "a/26")
    assert second is not None and second["spec"] == {"handleID": "H", "block": {"b/26": 1}, "newer": 1}
    assert counted_down(second, "a/26") is None
    third = counted_down(second, "b/26")
    assert third is not None and third["spec"] == {"handleID": "H", "block": {}, "newer": 1, "deleted": True}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unallocated": [0, 2, 3]}, "neither free nor taken, or both"),
        ({"unallocated": [2]}, "neither free nor taken, or both"),
        ({"allocations": [0, 2, None, None]}, "do not belong together"),
        ({"allocations": [0, 0, None, None]}, "do not belong together"),
        ({"allocations": [0, 1, None]}, "3 places for 4 addresses"),
        ({"sequenceNumber": 1.795e18}, "no whole number"),
        ({"cidr": "nonsense"}, "cannot be read"),
    ],
)
def test_a_block_that_contradicts_itself_is_told(change: dict[str, Any], said: str) -> None:
    spec = {
        "cidr": "10.0.0.0/30",
        "allocations": [0, 1, None, None],
        "unallocated": [2, 3],
        "attributes": [{"handle_id": "a"}, {"handle_id": "b"}],
        "sequenceNumber": 1795381258558874310,
    }
    assert wrong(spec) == ""
    assert said in wrong({**spec, **change})


@st.composite
def any_block(draw: st.DrawFn) -> dict[str, Any]:
    """A block as years of use make one: shared attributes, stale numbers, a row in any order, cooldowns."""
    owners = draw(st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=16, max_size=16))
    known = sorted({one for one in owners if one is not None})
    order = draw(st.permutations(known))
    attributes: list[dict[str, Any]] = [
        {"releasedAt": "2026-11-22T21:01:30Z"}
        if one == 5
        else {"handle_id": f"h{one}", "secondary": {"pod": f"p{one}"}}
        for one in order
    ]
    allocations = [None if one is None else order.index(one) for one in owners]
    free = draw(st.permutations([ordinal for ordinal, index in enumerate(allocations) if index is None]))
    numbers = draw(st.dictionaries(st.integers(0, 15).map(str), st.integers(10**18, 2 * 10**18)))
    spec = {
        "cidr": draw(st.sampled_from(["10.9.0.16/28", "fd00:10::40/124"])),
        "allocations": allocations,
        "unallocated": list(free),
        "attributes": attributes,
        "sequenceNumber": draw(st.integers(10**18, 2 * 10**18)),
        "sequenceNumberForAllocation": numbers,
        "deleted": False,
        "newer": {"x": 1},
    }
    return {"metadata": {"name": "b", "resourceVersion": "7", "annotations": {"a": "b"}}, "spec": spec}


@settings(deadline=None)
@given(any_block(), st.integers(0, 15), st.sampled_from([0, 30, 60]))
def test_only_the_one_address_changes_hands(block: dict[str, Any], ordinal: int, cooldown_s: int) -> None:
    network = ip_network(block["spec"]["cidr"])
    before = copy.deepcopy(block)
    owner = holding(block["spec"], str(network[ordinal])).attribute
    if owner is None or "releasedAt" in owner:
        with pytest.raises(ValueError, match="not held by anybody"):
            released(block, str(network[ordinal]), now=NOW, cooldown_s=cooldown_s)
        return
    after = released(block, str(network[ordinal]), now=NOW, cooldown_s=cooldown_s)
    assert block == before, "what was read is not touched"
    assert wrong(after["spec"]) == ""
    assert after["metadata"] == before["metadata"] and after["spec"]["newer"] == {"x": 1}
    assert after["spec"]["sequenceNumber"] == before["spec"]["sequenceNumber"] + 1
    for other in range(16):
        was, now = (holding(one["spec"], str(network[other])) for one in (before, after))
        if other == ordinal:
            assert now.attribute is None or now.in_cooldown
        elif was.attribute and not was.in_cooldown:
            assert now == was, "another's address"
        elif was.attribute is None:
            assert now.attribute is None
    row = [one for one in after["spec"]["unallocated"] if one in before["spec"]["unallocated"]]
    assert row == before["spec"]["unallocated"], "who comes next stays so"


def _without(spec: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key != name}
