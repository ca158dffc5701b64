"""Calico's address blocks read as they stand; without it nobody can say whose an address is or whether any is left."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import ip_network
from typing import Any

import msgspec

from bot.sources.names import Address, Network, block_of
from facts import Allocation, Pool, PoolUsage
from facts.version import since

SIZES = {4: range(20, 33), 6: range(116, 129)}  # prefix lengths Calico accepts for blocks
BLOCKS_PER_NODE = 20  # where nobody set a limit (reference: calico.md 1.8)
WINDOWS_RESERVED = "windows-reserved-ipam-handle"
RECLAIMS_SINCE = (3, 32)  # from here on Calico takes other nodes' empty blocks when a pool has none left


def pool_of(address: Address, pools: Iterable[Pool]) -> Pool | None:
    """The most specific pool that contains the address, disabled ones included."""
    holding = [pool for pool in pools if address in ip_network(pool.cidr)]
    return max(holding, key=lambda pool: ip_network(pool.cidr).prefixlen, default=None)


def candidates(address: Address, pools: Iterable[Pool]) -> tuple[list[Network], list[Network]]:
    """Blocks that may contain the address: those the pools' present sizes say, then every other size Calico knows.

    A pool may have been made again with another block size while blocks of the old size live on.
    """
    sizes = SIZES[address.version]
    likely = sorted({pool.block_size for pool in pools if address in ip_network(pool.cidr)} & set(sizes))
    others = [size for size in sizes if size not in likely]
    return [block_of(address, size) for size in likely], [block_of(address, size) for size in others]


def node_of(spec: Mapping[str, Any]) -> str:
    """Node a block is affine to; "" for a block without affinity or of a virtual owner."""
    kind, _, name = str(spec.get("affinity") or "").partition(":")
    return name if kind == "host" else ""


def allocation(address: Address, spec: Mapping[str, Any] | None, pool: Pool | None) -> Allocation:
    """What one block's spec says about an address in it; None when no block contains the address."""
    about: dict[str, Any] = {
        "address": str(address),
        "pool": pool.name if pool else "",
        "vxlan_mode": pool.vxlan_mode if pool else "",
        "ipip_mode": pool.ipip_mode if pool else "",
        "nat_outgoing": bool(pool and pool.nat_outgoing),
    }
    if spec is None or spec.get("deleted"):
        return Allocation(found=False, **about)
    cidr = ip_network(spec["cidr"])
    about |= {"block": str(cidr), "block_node": node_of(spec)}
    attribute = _attribute(spec, int(address) - int(cidr.network_address))
    if attribute is None or attribute.get("releasedAt"):
        return Allocation(found=False, **about)
    secondary: Mapping[str, Any] = attribute.get("secondary") or {}
    # A virtual machine keeps its address while pods come and go: the one that is named may be the one before.
    machine = "virtualMachine" if secondary.get("vmi-name") else ""
    kind = str(secondary.get("type") or machine or ("pod" if secondary.get("pod") else ""))
    owner = f"{secondary.get('namespace', '')}/{secondary['pod']}" if kind == "pod" else str(secondary.get("node", ""))
    return Allocation(
        found=True,
        handle=str(attribute.get("handle_id") or "").split("\r")[0],
        owner_kind=kind,
        owner=owner,
        node=str(secondary.get("node", "")),
        **about,
    )


def _attribute(spec: Mapping[str, Any], ordinal: int) -> Mapping[str, Any] | None:
    """The attribute an ordinal points to; None when it is free."""
    allocations: Sequence[int | None] = spec.get("allocations") or ()
    attributes: Sequence[Mapping[str, Any]] = spec.get("attributes") or ()
    if not 0 <= ordinal < len(allocations):
        return None
    index = allocations[ordinal]
    if index is None:
        return None
    return attributes[index] if 0 <= index < len(attributes) else {}


def usage(
    pool: Pool,
    node: str,
    blocks: Iterable[Mapping[str, Any]],
    reserved: Collection[Network],
    *,
    nodes: int,
    version: str,
    strict_affinity: bool,
    auto_allocate: bool = True,
    block_limit: int = BLOCKS_PER_NODE,
    cooldown_s: int = 0,
) -> PoolUsage:
    """The arithmetic of `calicoctl ipam show` for one pool and one node, over the specs of all blocks.

    version: Calico's, "" when unknown; then an empty block of another node counts as one that may be reclaimed.
    """
    network = ip_network(pool.cidr)
    taken: set[int] = set()
    slot = 1 << (network.max_prefixlen - pool.block_size)
    here = elsewhere = empty = own = cooling = 0
    for spec in blocks:
        cidr = ip_network(spec["cidr"])
        own += not spec.get("deleted") and node_of(spec) == node and cidr.version == network.version
        if spec.get("deleted") or not cidr.overlaps(network):
            continue
        first = int(cidr.network_address) - int(network.network_address)
        taken.update(
            range(max(first, 0) // slot, (min(first + cidr.num_addresses, network.num_addresses) + slot - 1) // slot)
        )
        free = _free(spec, cidr, reserved)
        cooling += _cooling(spec)
        if node_of(spec) == node:
            here += free
        else:
            elsewhere += free
            empty += bool(node_of(spec)) and _is_empty(spec)
    possible = 1 << max(pool.block_size - network.prefixlen, 0)
    reclaimable = empty > 0 and since(version, RECLAIMS_SINCE, unknown=True)
    claimable = auto_allocate and (len(taken) < possible or reclaimable)
    forbids = ""
    if not here and own >= block_limit:  # then Calico does not even try to borrow
        exhausted = True
        forbids = "block_limit" if claimable or elsewhere else ""
    elif not here and not claimable and strict_affinity:
        exhausted = True
        forbids = "strict_affinity" if elsewhere else ""
    else:
        exhausted = not (here or claimable or elsewhere)
    return PoolUsage(
        pool=pool.name,
        cidr=pool.cidr,
        node=node,
        block_size=pool.block_size,
        addresses=network.num_addresses,
        blocks_possible=possible,
        blocks_taken=len(taken),
        nodes=nodes,
        free_on_node=here,
        free_elsewhere=elsewhere,
        empty_elsewhere=empty,
        strict_affinity=strict_affinity,
        exhausted=exhausted,
        forbids=forbids,
        forbidden=(elsewhere + (possible - len(taken)) * slot * (forbids == "block_limit")) if forbids else 0,
        blocks_on_node=own,
        block_limit=block_limit,
        cooling=cooling,
        cooldown_s=cooldown_s,
    )


def no_pool(node: str, *, nodes: int, strict_affinity: bool) -> PoolUsage:
    """Every pool was looked at, and none is for this node and pod."""
    return PoolUsage(
        pool="",
        cidr="",
        node=node,
        block_size=0,
        addresses=0,
        blocks_possible=0,
        blocks_taken=0,
        nodes=nodes,
        free_on_node=0,
        free_elsewhere=0,
        empty_elsewhere=0,
        strict_affinity=strict_affinity,
        exhausted=False,
    )


def together(pools: Sequence[PoolUsage]) -> list[PoolUsage]:
    """All pools one node may use, each knowing what matters of the others of its family: a node lacks an address only
    when all of them do."""
    by_family: dict[bool, list[PoolUsage]] = {}
    for one in pools:
        by_family.setdefault(":" in one.cidr, []).append(one)
    return [one for family in by_family.values() for one in _of_one_family(family)]


def _of_one_family(pools: Sequence[PoolUsage]) -> list[PoolUsage]:
    roomy = any(not one.exhausted for one in pools)
    forbids = "" if roomy else next((one.forbids for one in pools if one.forbids), "")
    forbidden = sum(one.forbidden for one in pools) if forbids else 0
    return [
        msgspec.structs.replace(one, other_pool=one.exhausted and roomy, forbids=forbids, forbidden=forbidden)
        for one in pools
    ]


def _free(spec: Mapping[str, Any], cidr: Network, reserved: Collection[Network]) -> int:
    """Addresses of a block that can be given out: unallocated, and in no IPReservation."""
    inside = [one for one in reserved if one.overlaps(cidr)]
    ordinals: Sequence[int] = spec.get("unallocated") or ()
    if not inside:
        return len(ordinals)
    return sum(not any(cidr[ordinal] in one for one in inside) for ordinal in ordinals)


def _cooling(spec: Mapping[str, Any]) -> int:
    """Addresses that were released and that nobody gets before their cooldown is over."""
    attributes: Sequence[Mapping[str, Any]] = spec.get("attributes") or ()
    released = {index for index, one in enumerate(attributes) if one.get("releasedAt")}
    return sum(index in released for index in spec.get("allocations") or ())


def _is_empty(spec: Mapping[str, Any]) -> bool:
    """No address in use; those Windows reserves in each block do not count."""
    attributes: Sequence[Mapping[str, Any]] = spec.get("attributes") or ()
    return all(
        index is None or (0 <= index < len(attributes) and attributes[index].get("handle_id") == WINDOWS_RESERVED)
        for index in spec.get("allocations") or ()
    )
