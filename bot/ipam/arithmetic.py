"""How many addresses pools and blocks have, and what became of them, in whole numbers however large a pool is; without
it calicoctl's five digits would be the last word on an IPv6 pool."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from ipaddress import ip_network
from typing import Any

import msgspec

from bot.ipam.state import State
from bot.sources import describe, ipam
from bot.sources.names import Network
from facts import Pool

EXACT = 10**10  # IPv4 has fewer; more digits than that nobody counts


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses of a pool or block. Those allocated before they were reserved are both in use and reserved."""

    addresses: int
    in_use: int  # allocated, cooling ones included
    reserved: int  # in an IPReservation
    free: int  # neither
    cooling: int  # released, and not given to anybody before their cooldown is over


class BlockUse(msgspec.Struct, frozen=True, kw_only=True):
    """One IPAMBlock."""

    cidr: str
    affinity: str  # "host:node-a", "virtual:load-balancer", "" for nobody's
    counts: Counts


class PoolUse(msgspec.Struct, frozen=True, kw_only=True):
    """One IPPool with the blocks in it."""

    name: str
    cidr: str
    block_size: int
    disabled: bool
    deleting: bool
    counts: Counts  # of the whole CIDR, space that no block takes included
    blocks_possible: int
    blocks_taken: int  # of those, which some block lies in
    other_sizes: int  # blocks that are not of the pool's present block size
    blocks: tuple[BlockUse, ...]


class Utilization(msgspec.Struct, frozen=True, kw_only=True):
    """All pools by name, and the blocks that lie in none."""

    pools: tuple[PoolUse, ...]
    outside: tuple[BlockUse, ...]


def utilization(state: State) -> Utilization:
    """What `calicoctl ipam show` reckons, of both families."""
    reserved = ipam.reservations(state.all("ipreservations"))
    pools = sorted(pools_of(state), key=lambda one: one.name)
    specs = blocks_of(state)
    homes: dict[str, list[Mapping[str, Any]]] = {one.name: [] for one in pools}
    outside: list[Mapping[str, Any]] = []
    for spec in specs:
        home = pool_of_block(ip_network(spec["cidr"]), pools)
        (outside if home is None else homes[home.name]).append(spec)
    return Utilization(
        pools=tuple(_pool_use(one, homes[one.name], specs, reserved) for one in pools),
        outside=tuple(_block_use(spec, reserved) for spec in outside),
    )


def pools_of(state: State) -> list[Pool]:
    """Every pool, disabled ones included."""
    return [found for one in state.all("ippools") if (found := describe.pool(one))]


def blocks_of(state: State) -> list[Mapping[str, Any]]:
    """The specs of all blocks, in the order of their names, which is that of calicoctl."""
    named = sorted(state.all("ipamblocks"), key=lambda one: str(one["metadata"]["name"]))
    return [one["spec"] for one in named if not one["spec"].get("deleted")]


def pool_of_block(block: Network, pools: Sequence[Pool]) -> Pool | None:
    """The pool a block was cut from: one that contains all of it, of its block size if there is one, the narrowest."""

    def fits(one: Pool) -> tuple[bool, int]:
        return one.block_size == block.prefixlen, ip_network(one.cidr).prefixlen

    holding = [one for one in pools if _inside(block, ip_network(one.cidr))]
    return max(holding, key=fits, default=None)


def counts(spec: Mapping[str, Any], reserved: Collection[Network], within: Network | None = None) -> Counts:
    """Of one block; within: only those of its addresses that lie in this network."""
    cidr = ip_network(spec["cidr"])
    allocations: Sequence[int | None] = spec.get("allocations") or ()
    attributes: Sequence[Mapping[str, Any]] = spec.get("attributes") or ()
    unallocated = set(spec.get("unallocated") or ())
    released = {index for index, one in enumerate(attributes) if one.get("releasedAt")}
    kept_back = [one for one in reserved if one.overlaps(cidr)]
    partly = within is not None and not _inside(cidr, within)
    ordinals = [one for one in range(cidr.num_addresses) if not partly or (within is not None and cidr[one] in within)]
    reserved_here = {one for one in ordinals if any(cidr[one] in network for network in kept_back)} if kept_back else ()
    return Counts(
        addresses=len(ordinals),
        in_use=sum(one not in unallocated for one in ordinals),
        reserved=len(reserved_here),
        free=sum(one in unallocated and one not in reserved_here for one in ordinals),
        cooling=sum(allocations[one] in released for one in ordinals if one < len(allocations)),
    )


def _pool_use(
    pool: Pool, own: Sequence[Mapping[str, Any]], specs: Sequence[Mapping[str, Any]], reserved: Collection[Network]
) -> PoolUse:
    network = ip_network(pool.cidr)
    touching = [spec for spec in specs if ip_network(spec["cidr"]).overlaps(network)]
    inside = [counts(spec, reserved, network) for spec in touching]
    kept_back = sum(min(one.num_addresses, network.num_addresses) for one in reserved if one.overlaps(network))
    used = sum(one.in_use for one in inside)
    both = sum(one.reserved + one.in_use + one.free - one.addresses for one in inside)
    rooms = ipam.room(pool, [found for spec in touching if (found := ipam.block(spec, reserved))], reserved)
    return PoolUse(
        name=pool.name,
        cidr=pool.cidr,
        block_size=pool.block_size,
        disabled=pool.disabled,
        deleting=pool.deleting,
        counts=Counts(
            addresses=network.num_addresses,
            in_use=used,
            reserved=kept_back,
            free=max(network.num_addresses - kept_back - used + both, 0),
            cooling=sum(one.cooling for one in inside),
        ),
        blocks_possible=rooms.possible,
        blocks_taken=rooms.taken,
        other_sizes=sum(ip_network(spec["cidr"]).prefixlen != pool.block_size for spec in touching),
        blocks=tuple(_block_use(spec, reserved) for spec in own),
    )


def _block_use(spec: Mapping[str, Any], reserved: Collection[Network]) -> BlockUse:
    cidr = str(ip_network(spec["cidr"]))
    return BlockUse(cidr=cidr, affinity=str(spec.get("affinity") or ""), counts=counts(spec, reserved))


def _inside(one: Network, other: Network) -> bool:
    return one.overlaps(other) and one.prefixlen >= other.prefixlen


def percent(part: int, whole: int) -> int:
    """Rounded to the nearest, halves to the even one, as calicoctl does; 0 of nothing."""
    return round(Fraction(100 * part, whole)) if whole else 0


def shown(number: int) -> str:
    """All digits where a person counts addresses, five where nobody does (`1.2089e+24`, as calicoctl has it)."""
    return str(number) if number < EXACT else f"{number:.5g}"


def bar(part: int, whole: int, width: int = 10) -> str:
    """How full something is, as ▰▰▱▱▱; what is not empty never looks so, and what is not full neither."""
    filled = part * width // whole if whole else 0
    if 0 < part < whole:
        filled = min(max(filled, 1), width - 1)
    return "▰" * filled + "▱" * (width - filled)
