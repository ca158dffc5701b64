"""What releasing an address does to a block and to its handle, as arithmetic; a slip here frees a live pod's address.

Nothing here reads or writes anything. The scheme is Calico's own (calico.md 1.2, 2.1), both before 3.33 and since.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, NamedTuple

import msgspec

from fixes.request import stamp

Object = dict[str, Any]

TUNNEL = re.compile(r"(vxlan|vxlan-v6|ipip|wireguard|wireguard-v6)-tunnel-addr-.*")  # handles of nodes' own addresses
WINDOWS_RESERVED = "windows-reserved-ipam-handle"


class Holding(NamedTuple):
    """What a block says about one address. attribute: None when it is free."""

    ordinal: int
    attribute: Object | None
    sequence: int

    @property
    def handle(self) -> str:
        """Without what a migration from host-local IPAM left behind it."""
        return str((self.attribute or {}).get("handle_id") or "").split("\r")[0]

    @property
    def in_cooldown(self) -> bool:
        return bool((self.attribute or {}).get("releasedAt"))


def holding(spec: Mapping[str, Any], address: str) -> Holding:
    """Raises ValueError when the address is not of this block, or the block is not one that can be read."""
    ordinal = _ordinal(spec, address)
    index = spec["allocations"][ordinal]
    sequence = (spec.get("sequenceNumberForAllocation") or {}).get(str(ordinal), 0)
    return Holding(ordinal, None if index is None else spec["attributes"][index], sequence)


def kind_of(attribute: Mapping[str, Any], affinity: str = "") -> str:
    """What an allocation is for: "pod" | "tunnel" | "service" | "machine" | "windows" | "shared" (it has two owners) |
    "cooldown" (released, and kept back) | "" when nothing known stands in it (calico.md 1.2, 1.4).

    affinity: of its block. Only a pod's is ever somebody's leak, and only that is released from here (2.3, P2).
    """
    about: Mapping[str, Any] = attribute.get("secondary") or {}
    handle = str(attribute.get("handle_id") or "").split("\r")[0]
    if attribute.get("releasedAt"):
        return "cooldown"
    if handle.lower() == WINDOWS_RESERVED or "note" in about:
        return "windows"
    if "service" in about or affinity.startswith("virtual:"):
        return "service"
    if any(key.startswith(("vm-", "vmi-", "vmim-")) for key in about) or ".vmi." in handle:
        return "machine"
    if about.get("type") or TUNNEL.fullmatch(handle):
        return "tunnel"
    if attribute.get("alternateOwnerAttrs"):
        return "shared"
    return "pod" if handle and about.get("namespace") and about.get("pod") else ""


def fingerprint(attribute: Mapping[str, Any]) -> str:
    """Whom an allocation is for, in a form that can be compared later."""
    return hashlib.sha256(msgspec.json.encode(attribute, order="deterministic")).hexdigest()


def wrong(spec: Mapping[str, Any]) -> str:
    """The first thing that is not as it is in every block of Calico (calico.md 1.2); "" when all is."""
    try:
        allocations, attributes, unallocated = spec["allocations"], spec["attributes"] or [], spec["unallocated"] or []
        size = _network(spec).num_addresses
    except (KeyError, ValueError, TypeError) as error:
        return f"it cannot be read ({error})"
    if len(allocations) != size:
        return f"it has {len(allocations)} places for {size} addresses"
    taken = [ordinal for ordinal, index in enumerate(allocations) if index is not None]
    if sorted([*taken, *unallocated]) != list(range(size)):
        return "an address is neither free nor taken, or both"
    used = {allocations[ordinal] for ordinal in taken}
    if not all(type(index) is int for index in used) or used != set(range(len(attributes))):
        return "its allocations and its attributes do not belong together"
    if type(spec.get("sequenceNumber", 0)) is not int:
        return "its sequence number is no whole number"
    return ""


def released(block: Mapping[str, Any], address: str, *, now: datetime, cooldown_s: int) -> Object:
    """The IPAMBlock after the address was released; every other field stays as it is.

    Raises ValueError when nobody holds the address. Whose it is has to be known before.
    """
    after: Object = copy.deepcopy(dict(block))
    spec = after["spec"]
    held = holding(spec, address)
    if held.attribute is None or held.in_cooldown:
        raise ValueError(f"{address} is not held by anybody")
    if cooldown_s > 0 or any(one.get("releasedAt") for one in spec["attributes"]):
        spec["attributes"].append({"releasedAt": stamp(now)})
        spec["allocations"][held.ordinal] = len(spec["attributes"]) - 1
        numbers = spec.get("sequenceNumberForAllocation") or {}
        spec["sequenceNumberForAllocation"] = {**numbers, str(held.ordinal): spec.get("sequenceNumber", 0)}
        _end_cooldowns(spec, now - timedelta(seconds=cooldown_s))
    else:
        _free(spec, held.ordinal)
    _drop_unused_attributes(spec)
    spec["sequenceNumber"] = spec.get("sequenceNumber", 0) + 1
    return after


def counted_down(handle: Mapping[str, Any], cidr: str) -> Object | None:
    """The IPAMHandle after one address of this block was released; None when it counts none there.

    One that counts nothing any more is marked `deleted`: it is written so, and then deleted.
    """
    count = (handle["spec"].get("block") or {}).get(cidr, 0)
    if count < 1:
        return None
    after: Object = copy.deepcopy(dict(handle))
    if count > 1:
        after["spec"]["block"][cidr] = count - 1
        return after
    del after["spec"]["block"][cidr]
    if not after["spec"]["block"]:
        after["spec"]["deleted"] = True
    return after


def _end_cooldowns(spec: Object, before: datetime) -> None:
    """Free what was released by then, as every release of a Calico with cooldown does."""
    for ordinal, index in enumerate(spec["allocations"]):
        if index is None or not (at := spec["attributes"][index].get("releasedAt")):
            continue
        if not spec["attributes"][index].get("handle_id") and datetime.fromisoformat(at) <= before:
            _free(spec, ordinal)


def _free(spec: Object, ordinal: int) -> None:
    spec["allocations"][ordinal] = None
    spec["unallocated"] = [*(spec.get("unallocated") or ()), ordinal]  # the last in the row to be given away
    (spec.get("sequenceNumberForAllocation") or {}).pop(str(ordinal), None)


def _drop_unused_attributes(spec: Object) -> None:
    """Allocations name their attribute by its place, so all places are counted anew."""
    used = sorted({index for index in spec["allocations"] if index is not None})
    place = {old: new for new, old in enumerate(used)}
    spec["attributes"] = [spec["attributes"][old] for old in used]
    spec["allocations"] = [None if index is None else place[index] for index in spec["allocations"]]


def _ordinal(spec: Mapping[str, Any], address: str) -> int:
    network = _network(spec)
    parsed = ip_address(address)
    if parsed.version != network.version or parsed not in network:
        raise ValueError(f"{address} is not an address of block {network}")
    return int(parsed) - int(network.network_address)


def _network(spec: Mapping[str, Any]) -> IPv4Network | IPv6Network:
    return ip_network(spec["cidr"])
