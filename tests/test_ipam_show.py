"""`ipam show` tells what calicoctl printed of every recorded cluster, and is right where calicoctl is not."""

from __future__ import annotations

import copy
import csv
import io
import json
import re
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from bot.errors import UserError
from bot.ipam import arithmetic, show
from bot.ipam.state import State
from bot.sources import describe
from tests import recorded_calicoctl
from tests.calico_allocator import empty_block
from tests.ipam_states import recorded_state, state_of
from tests.recorded_states import recorded

COOLDOWN = "master-87c15906f20c/ip-cooldown"
DISABLED = "master-87c15906f20c/pool-disabled"
TABLES = {
    "ipam-show.txt": lambda found: show.usage(found),
    "ipam-show-blocks.txt": lambda found: show.usage(found, blocks=True),
    "ipam-show-borrowed.txt": show.borrowed,
}
RUNS = [(state, name) for name in TABLES for state in recorded_calicoctl.runs(name)]


def test_every_recorded_table_is_looked_at() -> None:
    assert len(RUNS) == 51


@pytest.mark.parametrize(("state", "name"), RUNS)
def test_tables_are_those_of_calicoctl(state: str, name: str) -> None:
    printed = recorded_calicoctl.runs(name)[state].text
    told = TABLES[name](recorded_state(state))
    table, _, note = printed.partition("\n\nNote: f")
    assert told.text == table.rstrip("\n")
    # calicoctl counts addresses that nobody has any more, and that are kept back for a while
    assert (f"F{note}".strip() if note else "") == (
        "Found 4 IP allocations without an explicit node association. Unable to determine if they are borrowed."
        if (state, name) == (DISABLED, "ipam-show-borrowed.txt")
        else ""
    )
    assert name != "ipam-show-borrowed.txt" or told.notes == ()


@pytest.mark.parametrize("state", recorded_calicoctl.runs("ipam-show-configuration.txt"))
def test_the_configuration_is_that_of_calicoctl_but_for_a_pointer(state: str) -> None:
    def cells(table: str) -> list[list[str]]:
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.split("\n") if line[:1] == "|"]

    printed = cells(recorded_calicoctl.runs("ipam-show-configuration.txt")[state].text)
    mended = [[name, re.sub(r"\(\*ipam\.VMAddressPersistence\)\(0x\w+\)", "Enabled", value)] for name, value in printed]
    assert cells(show.configuration(recorded_state(state)).text) == mended


ADDRESSES = {
    path: printed
    for path in recorded_calicoctl.files()
    if re.search(r"ipam-show-ip[^/]*\.txt$", path) and (printed := recorded_calicoctl.printed(path))
}


@pytest.mark.parametrize("path", ADDRESSES)
def test_an_address_is_told_of_as_calicoctl_does(path: str) -> None:
    state = path.partition("/calicoctl/")[0] if "/calicoctl/" in path else path.rpartition("/")[0]
    whole = {
        "v3.32.1/leaks/1-before": "v3.32.1/leaks/1-before",
        "v3.32.1/leaks/2-release": "v3.32.1/leaks/1-before",
        COOLDOWN: f"{COOLDOWN}/after-del",
    }.get(state, state)
    printed = ADDRESSES[path]
    address = printed.command.rpartition("=")[2]
    recording = recorded(whole)
    for one in recording.objects:
        if state == COOLDOWN and one["kind"] == "IPAMConfig":  # as recorded beside it: show-configuration.txt
            one["spec"]["ipCooldownSeconds"] = 60
    told = show.of_address(state_of(recording.objects), ip_address(address))
    if state == COOLDOWN:
        assert (printed.status, printed.text) == (1, "") and "is in cooldown" in printed.error
        assert told.text == f"IP {address} is in cooldown"
        assert "given to nobody for 60 s" in " ".join(map(str, told.notes))
    else:
        assert told.text == printed.text.rstrip("\n")


def test_what_is_in_its_cooldown_is_told_beside_the_table() -> None:
    printed = recorded_calicoctl.printed(f"{COOLDOWN}/ipam-show.txt").text
    told = show.usage(recorded_state(f"{COOLDOWN}/after-del"), blocks=True)
    assert told.text == printed.rstrip("\n")
    assert any("1 were released and are kept back" in str(note) for note in told.notes)
    assert told.data["pools"][0]["counts"]["cooling"] == 1


def changed(state: str, **spec: Any) -> State:
    """A recorded cluster whose pool is another one."""
    recording = recorded(state)
    for one in recording.objects:
        if one["kind"] == "IPPool":
            one["spec"].update(spec)
    return state_of(recording.objects)


def test_an_address_of_a_disabled_pool_is_in_use() -> None:
    """calicoctl: "is not assigned"."""
    told = show.of_address(recorded_state("v3.31.7/pool-disabled"), ip_address("10.244.174.129"))
    assert told.text.startswith("IP 10.244.174.129 is in use\nHandle ID: k8s-pod-network.")
    assert "Pool default-ipv4-ippool is disabled" in " ".join(map(str, told.notes))


def test_an_address_in_a_block_of_another_size_is_in_use() -> None:
    """The pool was made again with larger blocks, and calicoctl looks for one of those."""
    found = changed("v3.32.1/healthy", blockSize=24)
    told = show.of_address(found, ip_address("10.244.174.132"))
    assert told.text == recorded_calicoctl.printed("v3.32.1/healthy/calicoctl/ipam-show-ip-allocated.txt").text.strip()
    assert "not of the pool's present block size /24" in " ".join(map(str, told.notes))
    (note,) = [str(one) for one in show.usage(found).notes if "can be given out twice" in str(one)]
    assert note.startswith("3 blocks in default-ipv4-ippool are not of its present block size /24.")


def test_an_address_that_two_blocks_hold_is_told_twice() -> None:
    recording = recorded("v3.32.1/healthy")
    (block,) = [
        one for one in recording.objects if one["kind"] == "IPAMBlock" and "174" in one["spec"]["cidr"]
    ]  # fmt: skip
    twin = copy.deepcopy(block)
    twin["metadata"]["name"] = "10-244-174-132-30"
    twin["spec"] = empty_block("10.244.174.132/30", "node-b") | {
        "allocations": [0, None, None, None], "unallocated": [1, 2, 3], "attributes": [{"handle_id": "other"}],
    }  # fmt: skip
    recording.objects.append(twin)
    told = show.of_address(state_of(recording.objects), ip_address("10.244.174.132"))
    assert told.text.count("is in use") == 2 and told.mark == "cause"
    assert str(told.headline) == "10.244.174.132 is held in 2 blocks at once."


def test_blocks_of_both_families_without_a_pool_are_shown() -> None:
    """calicoctl shows those of IPv4 below the last pool, as if they were its own, and those of IPv6 nowhere."""
    recording = recorded("v3.32.1/dualstack/healthy")
    for name, cidr in (("10-9-0-0-26", "10.9.0.0/26"), ("fd01----122", "fd01::/122")):
        spec = empty_block(cidr, "node-a")
        recording.objects.append({"kind": "IPAMBlock", "metadata": {"name": name}, "spec": spec})
    found = state_of(recording.objects)
    told = show.usage(found, blocks=True)
    lines = [re.split(r"\s*\|\s*", line)[1:3] for line in told.text.split("\n")[-5:-1]]
    assert lines[1:] == [["No IP Pool", ""], ["Block", "10.9.0.0/26"], ["Block", "fd01::/122"]]
    assert "2 blocks lie in no pool, with 0 addresses in use: 10.9.0.0/26, fd01::/122." in map(str, told.notes)
    assert [one["cidr"] for one in told.data["outside"]] == ["10.9.0.0/26", "fd01::/122"]
    assert "10.9.0.0/26" not in show.usage(found).text


def test_numbers_are_exact_in_json_and_csv_however_large_a_pool_is() -> None:
    told = show.usage(recorded_state("v3.32.1/dualstack/healthy"))
    assert "1.2089e+24" in told.text  # as calicoctl has it
    (pool,) = [one for one in json.loads(told.form("json"))["pools"] if ":" in one["cidr"]]
    assert pool["counts"] == {"addresses": 2**80, "in_use": 9, "reserved": 0, "free": 2**80 - 9, "cooling": 0}
    assert (pool["blocks_possible"], pool["blocks_taken"]) == (2**74, 3)
    rows = list(csv.DictReader(io.StringIO(told.form("csv"))))
    assert [one["free"] for one in rows if one["cidr"] == "fd00:10:244::/48"] == [str(2**80 - 9)]
    assert len(rows) == 2 + 6


def test_a_pool_that_people_count_is_never_rounded() -> None:
    """calicoctl: 2.6214e+05 (100%)."""
    told = show.usage(changed("v3.32.1/healthy", cidr="10.244.0.0/14"))
    assert "|    262144 | 12 (0%)    | 262132 (100%) |" in told.text


def test_reserved_addresses_are_not_free() -> None:
    """calicoctl of this version counts them as free. Two of the six are in use already."""
    recording = recorded("v3.32.1/healthy")
    reserved = ["10.244.174.128/30", "10.244.174.130/32", "10.244.200.0/31", "192.168.0.0/16", "fd00::/64", "?"]
    recording.objects.append({"kind": "IPReservation", "metadata": {"name": "x"}, "spec": {"reservedCIDRs": reserved}})
    told = show.usage(state_of(recording.objects), blocks=True)
    assert "IPS RESERVED" in told.text
    (pool,) = told.data["pools"]
    block = next(one for one in pool["blocks"] if one["cidr"] == "10.244.174.128/26")
    spec = next(one["spec"] for one in recording.objects if one["kind"] == "IPAMBlock"
                and one["spec"]["cidr"] == block["cidr"])  # fmt: skip
    both = sum(spec["allocations"][ordinal] is not None for ordinal in range(4))
    assert both > 0
    assert block["counts"] == {
        "addresses": 64, "in_use": 4, "reserved": 4, "free": 64 - 4 - (4 - both), "cooling": 0,
    }  # fmt: skip
    assert pool["counts"]["reserved"] == 6
    assert pool["counts"]["free"] == 65536 - 12 - 6 + both


def test_a_full_pool_is_told_at_once() -> None:
    told = show.usage(recorded_state("v3.32.1/exhaustion/7-pool-full"))
    assert str(told.headline).startswith("No address is left in default-ipv4-ippool;") and told.mark == "cause"
    assert (
        "▰▰▰▰▰▰▰▰▰▰ default-ipv4-ippool (10.245.0.0/25): 128 of 128 addresses in use, 2 of 2 blocks of /26 taken."
        in (map(str, told.notes))
    )


@pytest.mark.parametrize(("part", "filled"), [(0, 0), (1, 1), (500, 5), (999, 9), (1000, 10)])
def test_a_bar_is_empty_or_full_only_where_that_is_so(part: int, filled: int) -> None:
    assert arithmetic.bar(part, 1000) == "▰" * filled + "▱" * (10 - filled)


def test_a_block_belongs_to_the_pool_it_was_cut_from() -> None:
    """Where pools overlap: the one of its block size, then the narrowest; not one that holds a part of it only."""
    pools = [
        found
        for name, cidr, size in (("wide", "10.0.0.0/8", 26), ("narrow", "10.9.0.0/16", 28), ("part", "10.9.0.0/29", 29))
        if (found := describe.pool({"metadata": {"name": name}, "spec": {"cidr": cidr, "blockSize": size}}))
    ]

    def home(cidr: str) -> str:
        found = arithmetic.pool_of_block(ip_network(cidr), pools)
        return found.name if found else ""

    assert [home(one) for one in ("10.9.0.0/26", "10.9.0.0/28", "10.9.0.0/27", "10.8.0.0/28", "11.0.0.0/26")] == [
        "wide", "narrow", "narrow", "wide", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "hint"),
    [("10.244.1.7/32", "Did you mean --ip 10.244.1.7?"), ("cart", "Give one address"), ("999.1.1.1", "Give one addr")],
)
def test_what_is_no_address_gets_the_nearest_form(said: str, hint: str) -> None:
    with pytest.raises(UserError, match=re.escape(hint)):
        show._address(said)
