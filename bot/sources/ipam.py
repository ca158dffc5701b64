"""Calico's address blocks read as they stand; without it nobody can say whose an address is or whether any is left."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import Any, NamedTuple

import msgspec

from bot.sources import describe
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


def candidates(address: Address, pools: Iterable[Pool]) -> Iterator[list[Network]]:
    """Blocks that may contain the address: those the pools' present sizes say, then every other size Calico knows.

    A pool may have been made again with another block size while blocks of the old size live on.
    """
    sizes = SIZES[address.version]
    likely = sorted({pool.block_size for pool in pools if address in ip_network(pool.cidr)} & set(sizes))
    yield [block_of(address, size) for size in likely]
    yield [block_of(address, size) for size in sizes if size not in likely]


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


class Block(NamedTuple):
    """What one block's spec comes down to."""

    network: Network
    node: str  # "" without one
    free: int  # addresses that can be given out: unallocated, and in no IPReservation
    withheld: int  # unallocated, but in an IPReservation
    cooling: int  # released, and given to nobody before their cooldown is over
    empty: bool  # no address in use; those Windows reserves in each block do not count


def block(spec: Mapping[str, Any], reserved: Collection[Network]) -> Block | None:
    """None for one that is being deleted."""
    if spec.get("deleted"):
        return None
    cidr = ip_network(spec["cidr"])
    free = _free(spec, cidr, reserved)
    withheld = len(spec.get("unallocated") or ()) - free
    return Block(cidr, node_of(spec), free, withheld, _cooling(spec), _is_empty(spec))


def reservations(resources: Iterable[Mapping[str, Any]]) -> list[Network]:
    """What the IPReservations keep back, as few networks as that takes. What is no network is passed over, as Calico
    does."""
    found = []
    for one in resources:
        for cidr in (one.get("spec") or {}).get("reservedCIDRs") or ():
            with contextlib.suppress(ValueError):
                found.append(ip_network(str(cidr).strip(), strict=False))
    return [*collapse_addresses(one for one in found if isinstance(one, IPv4Network)),
            *collapse_addresses(one for one in found if isinstance(one, IPv6Network))]  # fmt: skip


class Room(NamedTuple):
    """What a pool's blocks leave, for every node at once."""

    pool: Pool
    possible: int  # blocks of the pool's size
    taken: int  # of those, which some block lies in
    claimable: (
        int  # blocks a node could take: those that Calico finds no block at, and that are not reserved as a whole
    )
    free: Counter[str]  # node -> free addresses in its blocks, "" for blocks of nobody
    lendable: Counter[str]  # the same, of the blocks Calico looks at when a node borrows: those of the pool's own size
    empty: Counter[str]  # node -> blocks of it that are empty and could be given to another
    withheld: int
    cooling: int


def room(pool: Pool, blocks: Iterable[Block], reserved: Collection[Network]) -> Room:
    """As the allocator meets it (libcalico-go ipam findUsableBlock, autoAssign): it looks under every CIDR of the
    pool's present block size, and sees no block of another size."""
    network = ip_network(pool.cidr)
    slot = 1 << (network.max_prefixlen - pool.block_size)
    possible = 1 << max(pool.block_size - network.prefixlen, 0)
    kept_back = [cut for one in reserved if (cut := _within(one, network)) and cut.prefixlen <= pool.block_size]
    taken, there = set[int](), 0
    found = Room(pool, possible, 0, 0, Counter(), Counter(), Counter(), 0, 0)
    withheld = cooling = 0
    for one in blocks:
        if not one.network.overlaps(network):
            continue
        first = int(one.network.network_address) - int(network.network_address)
        end = min(first + one.network.num_addresses, network.num_addresses)
        taken.update(range(max(first, 0) // slot, (end + slot - 1) // slot))
        withheld += one.withheld
        cooling += one.cooling
        found.free[one.node] += one.free
        if one.network.prefixlen == pool.block_size and network.prefixlen <= pool.block_size:
            there += not any(one.network.overlaps(cut) for cut in kept_back)
            found.lendable[one.node] += one.free
            found.empty[one.node] += one.empty and bool(one.node) and one.free > 0
    whole = sum(1 << (pool.block_size - cut.prefixlen) for cut in kept_back)
    claimable = max(possible - whole - there, 0)
    return found._replace(taken=len(taken), claimable=claimable, withheld=withheld, cooling=cooling)


def _within(one: Network, network: Network) -> Network | None:
    """The part of a network that lies in another."""
    if not one.overlaps(network):
        return None
    return one if one.prefixlen >= network.prefixlen else network


def held(spec: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    """(ordinal, attribute) of each address of a block that is allocated, cooling ones included."""
    attributes: Sequence[Mapping[str, Any]] = spec.get("attributes") or ()
    return [
        (ordinal, attributes[index] if 0 <= index < len(attributes) else {})
        for ordinal, index in enumerate(spec.get("allocations") or ())
        if index is not None
    ]


def usage(
    pool: Pool,
    node: str,
    blocks: Iterable[Mapping[str, Any]],
    reserved: Collection[Network],
    *,
    among: Sequence[Pool] = (),
    nodes: int,
    version: str,
    strict_affinity: bool,
    auto_allocate: bool = True,
    block_limit: int = BLOCKS_PER_NODE,
    cooldown_s: int = 0,
) -> PoolUsage:
    """The arithmetic of `calicoctl ipam show` for one pool and one node, over the specs of all blocks.

    among: the pools this request may use, whose blocks count against the limit; the pool's own family where not given.
    version: Calico's, "" when unknown; then an empty block of another node counts as one that may be reclaimed.
    """
    known = [found for spec in blocks if (found := block(spec, reserved))]
    limits = Limits(nodes, version, strict_affinity, auto_allocate, block_limit, cooldown_s)
    own = owned(known, ip_network(pool.cidr).version, among)[node]
    return used_by(room(pool, known, reserved), node, own, limits)


class Limits(NamedTuple):
    """What goes for all pools and nodes alike."""

    nodes: int = -1  # of the cluster; -1 when not known
    version: str = ""
    strict_affinity: bool = False
    auto_allocate: bool = True
    block_limit: int = BLOCKS_PER_NODE
    cooldown_s: int = 0


def limits(spec: Mapping[str, Any], *, nodes: int, version: str) -> Limits:
    """spec: of IPAMConfig, {} where there is none."""
    return Limits(
        nodes,
        version,
        bool(spec.get("strictAffinity")),
        bool(spec.get("autoAllocateBlocks", True)),
        int(spec.get("maxBlocksPerHost") or BLOCKS_PER_NODE),
        int(spec.get("ipCooldownSeconds") or 0),
    )


def owned(blocks: Iterable[Block], family: int, among: Sequence[Pool] = ()) -> Counter[str]:
    """How many blocks each node has, as the limit counts them: those of the pools a request may use; all where none are
    given."""
    networks = [ip_network(one.cidr) for one in among]
    return Counter(
        one.node
        for one in blocks
        if one.network.version == family
        and (not networks or any(one.network.network_address in network for network in networks))
    )


def used_by(room: Room, node: str, own: int, limits: Limits) -> PoolUsage:
    """The pool as one node meets it, which has `own` blocks in all pools it may use."""
    here = room.free[node]
    lendable = room.lendable.total() - room.lendable[node]
    empty = room.empty.total() - room.empty[node]
    reclaimable = empty if since(limits.version, RECLAIMS_SINCE, unknown=True) else 0
    takes = room.claimable or reclaimable
    forbids = ""
    if not here and own >= limits.block_limit:  # then Calico does not even try to borrow
        exhausted = True
        forbids = "block_limit" if takes or lendable else ""
    elif not here and not limits.auto_allocate:  # nor then
        exhausted = True
        forbids = "auto_allocate" if takes or lendable else ""
    elif not here and not takes and limits.strict_affinity:
        exhausted = True
        forbids = "strict_affinity" if lendable else ""
    else:
        exhausted = not (here or takes or lendable)
    slot = 1 << (ip_network(room.pool.cidr).max_prefixlen - room.pool.block_size)
    return PoolUsage(
        pool=room.pool.name,
        cidr=room.pool.cidr,
        node=node,
        block_size=room.pool.block_size,
        addresses=ip_network(room.pool.cidr).num_addresses,
        blocks_possible=room.possible,
        blocks_taken=room.taken,
        nodes=limits.nodes,
        free_on_node=here,
        free_elsewhere=lendable,
        empty_elsewhere=empty,
        strict_affinity=limits.strict_affinity,
        exhausted=exhausted,
        forbids=forbids,
        forbidden=(lendable + room.claimable * slot * (forbids != "strict_affinity")) if forbids else 0,
        blocks_on_node=own,
        block_limit=limits.block_limit,
        cooling=room.cooling,
        cooldown_s=limits.cooldown_s,
        claimable=room.claimable,
        reclaimable=reclaimable,
        auto_allocate=limits.auto_allocate,
        withheld=room.withheld,
    )


def next_address(pools: Sequence[PoolUsage]) -> tuple[str, str]:
    """(how a node would get its next address, why it would get none); one of the two is "".

    pools: of one family, all that it may use. How, in the order Calico tries: "own", "new", "reclaimed", "borrowed".
    Why not: "no_pool", "block_limit", "auto_allocate", "strict_affinity", "full".
    """
    if not pools:
        return "", "no_pool"
    first = pools[0]
    lendable = any(one.free_elsewhere for one in pools)
    if any(one.free_on_node for one in pools):
        return "own", ""
    new = any(one.claimable for one in pools)
    reclaimable = any(one.reclaimable for one in pools)
    if not (new or reclaimable or lendable):
        return "", "full"
    if first.blocks_on_node >= first.block_limit:
        return "", "block_limit"
    if not first.auto_allocate:
        return "", "auto_allocate"
    if new or reclaimable:
        return "new" if new else "reclaimed", ""
    return ("", "strict_affinity") if first.strict_affinity else ("borrowed", "")


# Why a pool is not for a node's next pod or tunnel address.
DISABLED, DELETING, USES, MANUAL, NODES, NAMESPACES = (
    "disabled", "deleting", "allowedUses", "assignmentMode", "nodeSelector", "namespaceSelector",
)  # fmt: skip


def refusal(
    pool: Pool,
    resource: Mapping[str, Any],
    node: Mapping[str, Any],
    namespaces: Sequence[Mapping[str, Any]] | None = None,
    *,
    use: str = "Workload",
) -> str:
    """Why Calico gives this node no address of the pool; "" where it does.

    namespaces: those of the pods that wait, of which one is enough; None for a pod of no namespace that is known.
    Tunnel addresses are asked of pools by their CIDRs, where neither the namespace nor the assignment mode counts.
    """
    spec: Mapping[str, Any] = resource.get("spec") or {}
    if pool.disabled:
        return DELETING if pool.deleting else DISABLED
    if not describe.allows(resource, use):
        return USES
    if use == "Workload" and spec.get("assignmentMode") == "Manual":
        return MANUAL
    if not describe.selects(pool.node_selector, node):
        return NODES
    chosen = spec.get("namespaceSelector")
    if use == "Workload" and chosen and not any(describe.selects(chosen, one) for one in namespaces or ({},)):
        return NAMESPACES
    return ""


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
