"""`ipam plan`: which pool and block size do for so many nodes and pods; without it the next pool is guessed, and too
small or ten times too large."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

import msgspec

from bot import told
from bot.errors import UserError
from bot.ipam.arithmetic import percent, shown
from bot.ipam.table import table
from bot.sources import describe, ipam
from bot.sources.names import Network
from bot.sources.resources import everything
from bot.told import Context, Told
from facts import Blind, Pool, Text, say
from fixes.resources.kinds import Object

HELP = (
    "which pool and block size would do, or whether one does, for example: "
    "ipam plan --nodes 100 --pods-per-node 110 --pool 10.244.0.0/16"
)

BITS = {4: 32, 6: 128}
PRIVATE = 8  # the largest private IPv4 range is 10.0.0.0/8
WASTE = 40  # percent of a pool or of a node's blocks that may lie idle without a word
MANY = 4  # more blocks a node than these, each a route on every other node, are many
COMMON = 64  # prefix length of an IPv6 pool that is never short


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool has to hold."""

    nodes: int  # headroom included
    pods_per_node: int
    tunnels: int = 0  # addresses each node needs for itself
    family: int = 4
    block_limit: int = ipam.BLOCKS_PER_NODE

    @property
    def addresses_per_node(self) -> int:
        return self.pods_per_node + self.tunnels


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest pool with blocks of one size in which every node has all its addresses in blocks of its own."""

    block_size: int
    blocks_per_node: int
    blocks: int  # of all nodes
    prefix: int  # of the pool
    addresses: int  # in it
    idle_per_node: int  # addresses of a node's blocks beyond what it needs
    spare_blocks: int  # of the pool, beyond what the nodes need


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether one pool does."""

    cidr: str
    block_size: int
    does: bool
    borrowing: bool  # it does not, but all pods get addresses as long as strict affinity is off
    blocks_per_node: int
    blocks: int  # that it has
    nodes: int  # that it does for, with so many pods on each
    pods_per_node: int  # that it does for, with so many nodes


def add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, required=True, metavar="N", help="nodes that take addresses of the pool")
    parser.add_argument("--pods-per-node", type=int, required=True, metavar="P", help="at most, as maxPods of kubelet")
    parser.add_argument("--headroom", type=int, default=0, metavar="PERCENT", help="room for so many more nodes (0)")
    parser.add_argument("--family", type=int, choices=(4, 6), help="4 or 6 (that of --pool, or 4)")
    parser.add_argument(
        "--encapsulation", choices=("vxlan", "ipip", "none"), help="whether nodes need a tunnel address (as pools here)"
    )
    parser.add_argument("--wireguard", action="store_true", help="nodes need an address for WireGuard, too")
    parser.add_argument("--max-blocks", type=int, metavar="N", help="blocks a node may have (as configured, else 20)")
    parser.add_argument("--pool", metavar="NAME|CIDR", help="say whether this pool does")
    parser.add_argument("--block-size", type=int, metavar="N", help="of --pool (its own, else 26 or 122)")
    told.output(parser, "text", "json", "csv")


async def answer(args: argparse.Namespace, context: Context) -> Told:
    """Raises UserError."""
    blind: list[Blind] = []
    read = await everything(context.cluster, ("ippools", "ipamconfigs"), blind)
    found = plan(args, read["ippools"] or [], read["ipamconfigs"] or [])
    unread = [
        say(
            "Could not read {kind}, so the defaults are taken: {reason}.",
            kind=one.look,
            reason=one.message or one.reason,
        )
        for one in blind
    ]
    return msgspec.structs.replace(found, notes=(*found.notes, *unread))


def plan(args: argparse.Namespace, pools: Sequence[Object], configurations: Sequence[Object]) -> Told:
    """The answer. pools, configurations: the cluster's IPPools and IPAMConfigs. Raises UserError."""
    known = [found for one in pools if (found := describe.pool(one))]
    pool = _pool(args, known) if args.pool else None
    family = args.family or (ip_network(pool.cidr).version if pool else 4)
    if pool and ip_network(pool.cidr).version != family:
        raise UserError(f"--pool {pool.cidr} is not of --family {family}. Leave --family out, or give another pool.")
    config = next((dict(one.get("spec") or {}) for one in configurations if one["metadata"]["name"] == "default"), {})
    alike = [one for one in known if ip_network(one.cidr).version == family and not one.disabled]
    need = Need(
        nodes=_enlarged(_positive(args.nodes, "--nodes"), args.headroom),
        pods_per_node=_positive(args.pods_per_node, "--pods-per-node"),
        tunnels=_tunnels(args.encapsulation, [pool] if pool and pool in known else alike, family) + args.wireguard,
        family=family,
        block_limit=_positive(args.max_blocks or ipam.limits(config, nodes=-1, version="").block_limit, "--max-blocks"),
    )
    return said(need, fits(need), verdict(need, ip_network(pool.cidr), pool.block_size) if pool else None)


def _positive(number: int, name: str) -> int:
    if not 1 <= number <= 10**6:
        raise UserError(f"{name} {number}: give a number from 1 to 1000000, for example {name} 100.")
    return number


def _enlarged(nodes: int, headroom: int) -> int:
    if not 0 <= headroom <= 1000:
        raise UserError(f"--headroom {headroom}: give percents from 0 to 1000, for example --headroom 20.")
    return -(-nodes * (100 + headroom) // 100)


def _tunnels(encapsulation: str | None, pools: Sequence[Pool], family: int) -> int:
    """Addresses each node needs for tunnels: as asked for, else as the pools of this cluster, else one. IPIP is of IPv4
    only."""
    if encapsulation:
        return int(encapsulation == "vxlan" or (encapsulation == "ipip" and family == 4))
    if not pools:
        return 1
    vxlan = any(one.vxlan_mode != "Never" for one in pools)
    return vxlan + (family == 4 and any(one.ipip_mode != "Never" for one in pools))


def _pool(args: argparse.Namespace, known: Sequence[Pool]) -> Pool:
    """The one that is named, else one of that CIDR that nobody has made yet. Raises UserError."""
    words = {word: one for one in known for word in (one.name, one.cidr)}
    pool = words.get(args.pool)
    if pool is None:
        try:
            cidr = ip_network(args.pool)
        except ValueError as error:
            names = ", ".join(one.name for one in known) or "none"
            raise UserError(
                f"{args.pool!r} is neither a pool of this cluster ({names}) nor a CIDR: {_reason(args.pool, error)}."
            ) from error
        pool = Pool(name="", cidr=str(cidr), block_size=describe.DEFAULT_BLOCK_SIZE[cidr.version])
    if args.block_size is not None:
        pool = msgspec.structs.replace(pool, block_size=args.block_size)
    network = ip_network(pool.cidr)
    sizes = ipam.SIZES[network.version]
    if pool.block_size not in sizes:
        raise UserError(
            f"--block-size {pool.block_size}: Calico takes {sizes[0]} to {sizes[-1]} for IPv{network.version}."
        )
    if pool.block_size < network.prefixlen:
        raise UserError(
            f"Blocks of /{pool.block_size} do not fit into {pool.cidr}. Give --block-size {network.prefixlen} or more."
            if network.prefixlen <= sizes[-1]
            else f"{pool.cidr} is too small for a pool."
        )
    return pool


def _reason(text: str, error: ValueError) -> str:
    try:
        return f"did you mean {ip_network(text, strict=False)}?"
    except ValueError:
        return str(error)


# -- the arithmetic ---------------------------------------------------------------------------------------------------


def fits(need: Need) -> list[Fit]:
    """The smallest pool for each block size that Calico takes and the limit of blocks allows, the best one first: the
    smallest pool in which no node has many blocks, since each is a route on every node, and of those the one with the
    fewest."""
    found = [fit for size in ipam.SIZES[need.family] if (fit := _fit(need, size))]
    return sorted(found, key=lambda one: (one.blocks_per_node > MANY, one.addresses, one.blocks, one.block_size))


def _fit(need: Need, block_size: int) -> Fit | None:
    bits = BITS[need.family]
    per_block = 1 << (bits - block_size)
    each = -(-need.addresses_per_node // per_block)
    blocks = need.nodes * each
    prefix = block_size - (blocks - 1).bit_length()
    if each > need.block_limit or prefix < 0:
        return None
    return Fit(
        block_size=block_size,
        blocks_per_node=each,
        blocks=blocks,
        prefix=prefix,
        addresses=1 << (bits - prefix),
        idle_per_node=each * per_block - need.addresses_per_node,
        spare_blocks=(1 << (block_size - prefix)) - blocks,
    )


def verdict(need: Need, network: Network, block_size: int) -> Verdict:
    """Whether the pool does. Raises ValueError for blocks that do not fit into it."""
    per_block = 1 << (BITS[need.family] - block_size)
    blocks = 1 << (block_size - network.prefixlen)
    each = -(-need.addresses_per_node // per_block)
    allowed = each <= need.block_limit
    does = allowed and need.nodes * each <= blocks
    most = min(blocks // need.nodes, need.block_limit) * per_block - need.tunnels
    return Verdict(
        cidr=str(network),
        block_size=block_size,
        does=does,
        # at its limit of blocks a node borrows nothing, and others may have borrowed of its own
        borrowing=not does
        and each < need.block_limit
        and need.nodes * need.addresses_per_node <= network.num_addresses,
        blocks_per_node=each,
        blocks=blocks,
        nodes=blocks // each if allowed else 0,
        pods_per_node=max(most, 0),
    )


def in_two(fit: Fit, family: int) -> tuple[int, int] | None:
    """Prefix lengths of two pools that hold the same blocks with fewer addresses; None where there are none."""
    half = 1 << (fit.block_size - fit.prefix - 1) if fit.prefix < fit.block_size else 0
    rest = fit.blocks - half
    if not half or rest <= 0:
        return None
    second = fit.block_size - (rest - 1).bit_length()
    return (fit.prefix + 1, second) if second > fit.prefix + 1 else None


# -- how it is told ---------------------------------------------------------------------------------------------------


def said(need: Need, found: Sequence[Fit], pool: Verdict | None) -> Told:
    """The plan as an answer."""
    best = found[0] if found else None
    head = ("BLOCK", "BLOCKS PER NODE", "BLOCKS", "POOL", "ADDRESSES", "IDLE PER NODE", "")
    rows = [
        (
            f"/{one.block_size}",
            str(one.blocks_per_node),
            str(one.blocks),
            f"/{one.prefix}",
            shown(one.addresses),
            str(one.idle_per_node),
            "<- the best" if one is best else "",
        )
        for one in sorted(found, key=lambda one: one.block_size)
    ]
    fields = Fit.__struct_fields__
    data: dict[str, Any] = {
        "need": msgspec.to_builtins(need),
        "best": msgspec.to_builtins(best),
        "sizes": msgspec.to_builtins(list(found)),
        "pool": msgspec.to_builtins(pool),
    }
    return Told(
        headline=_headline(need, best, pool),
        concludes=True,
        text=table(head, rows, numbers=head[1:-1]) if rows else "",
        notes=tuple(_notes(need, found, pool)),
        data=data,
        rows=(fields, *(tuple(str(getattr(one, field)) for field in fields) for one in found)),
        mark="cause" if (pool and not pool.does) or best is None or _too_large(need, best) else "healthy",
    )


def _too_large(need: Need, fit: Fit) -> bool:
    return need.family == 4 and fit.prefix < PRIVATE


def _headline(need: Need, best: Fit | None, pool: Verdict | None) -> Text:
    about = {"nodes": need.nodes, "pods": need.pods_per_node}
    if pool:
        return say(
            "{cidr} with blocks of /{size} does for {nodes} nodes with {pods} pods each."
            if pool.does
            else "{cidr} with blocks of /{size} does not do for {nodes} nodes with {pods} pods each.",
            cidr=pool.cidr,
            size=pool.block_size,
            **about,
        )
    if best is None:
        return say(
            "No pool does for {nodes} nodes with {pods} pods each: a node may have {limit} blocks.",
            limit=need.block_limit,
            **about,
        )
    if _too_large(need, best):
        return say(
            "No private IPv4 range does for {nodes} nodes with {pods} pods each: it would take a /{prefix}.",
            prefix=best.prefix,
            **about,
        )
    return say(
        "A pool of /{prefix} with blocks of /{size} does for {nodes} nodes with {pods} pods each.",
        prefix=best.prefix,
        size=best.block_size,
        **about,
    )


def _notes(need: Need, found: Sequence[Fit], pool: Verdict | None) -> list[Text]:
    best = found[0] if found else None
    notes = []
    if pool:
        notes.append(
            say(
                "It has {blocks} blocks, and each node needs {each}: with {pods} pods each it does for {nodes} nodes, "
                "and with {wanted} nodes for {most} pods each.",
                blocks=shown(pool.blocks),
                each=pool.blocks_per_node,
                pods=need.pods_per_node,
                nodes=shown(pool.nodes),
                wanted=need.nodes,
                most=shown(pool.pods_per_node),
            )
        )
    if pool and pool.blocks_per_node > need.block_limit:
        notes.append(say("A node may have {limit} blocks (maxBlocksPerHost).", limit=need.block_limit))
    if pool and pool.borrowing:
        notes.append(
            say(
                "All pods would get addresses, for nodes borrow them of each other, as long as strict affinity is off. "
                "Each borrowed address is a route of its own on every node."
            )
        )
    if need.tunnels:
        notes.append(
            say(
                "Each node takes {count} of its addresses for itself: tunnels of VXLAN, IPIP and WireGuard have "
                "addresses of the pool.",
                count=need.tunnels,
            )
        )
    if best is None or (pool and pool.does):
        return notes
    idle = percent(best.idle_per_node, best.idle_per_node + need.addresses_per_node)
    if idle > WASTE:
        notes.append(
            say(
                "{percent} % of each node's addresses stay idle: with {pods} pods a node smaller blocks make no "
                "smaller pool here.",
                percent=idle,
                pods=need.pods_per_node,
            )
        )
    if best.blocks_per_node > MANY:
        notes.append(
            say(
                "Each node has {each} blocks, so every node has {routes} routes to blocks of others.",
                each=best.blocks_per_node,
                routes=best.blocks - best.blocks_per_node,
            )
        )
    smallest = min(found, key=lambda one: (one.addresses, one.blocks))
    if smallest.addresses < best.addresses:
        notes.append(
            say(
                "A pool of /{prefix} does, too, with blocks of /{size}: {each} blocks a node, so every node has "
                "{routes} routes to blocks of others.",
                prefix=smallest.prefix,
                size=smallest.block_size,
                each=smallest.blocks_per_node,
                routes=smallest.blocks - smallest.blocks_per_node,
            )
        )
    spare = percent(best.spare_blocks, best.blocks + best.spare_blocks)
    two = in_two(best, need.family)
    if need.family == 4 and spare > WASTE and two:
        saved = best.addresses - sum(1 << (BITS[need.family] - prefix) for prefix in two)
        notes.append(
            say(
                "{percent} % of the pool's blocks would be spare. Two pools, of /{first} and /{second}, hold the same "
                "with {saved} addresses fewer.",
                percent=spare,
                first=two[0],
                second=two[1],
                saved=shown(saved),
            )
        )
    if need.family == 6 and best.prefix > COMMON:
        notes.append(
            say(
                "That is the smallest that does. IPv6 addresses cost nothing: a /{common} with the same blocks is "
                "never short of them.",
                common=COMMON,
            )
        )
    return notes
