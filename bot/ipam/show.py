"""`ipam show`: the tables of `calicoctl ipam show`, right where those are wrong; without it how full a pool is would be
known on a node with calicoctl only."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec

from bot import told
from bot.errors import UserError
from bot.ipam import arithmetic, state
from bot.ipam.arithmetic import BlockUse, Counts, PoolUse, percent, shown
from bot.ipam.state import State
from bot.ipam.table import table
from bot.sources import ipam
from bot.sources.names import Address
from bot.told import Context, Told
from facts import Text, say
from facts.message import listed
from facts.version import since

HELP = "how full pools and blocks are, what is borrowed, whose an address is, for example: ipam show --ip 10.244.1.7"

RESERVED_SINCE = (3, 33)  # from here on calicoctl knows reserved addresses from free ones
FIELDS = (  # of the configuration, with the release that has it
    ("StrictAffinity", "strictAffinity", False, (0, 0)),
    ("AutoAllocateBlocks", "autoAllocateBlocks", True, (0, 0)),
    ("MaxBlocksPerHost", "maxBlocksPerHost", 0, (0, 0)),
    ("KubeVirtVMAddressPersistence", "kubeVirtVMAddressPersistence", "not set", (3, 32)),
    ("IPCooldownSeconds", "ipCooldownSeconds", 0, (3, 33)),
)
BARS = 10  # pools that are drawn, the fullest first
READ = ("ippools", "ipamblocks", "ipreservations", "clusterinformations", "ipamconfigs")


def add_words(parser: argparse.ArgumentParser) -> None:
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--show-blocks", action="store_true", help="every block, too")
    one.add_argument("--show-borrowed", action="store_true", help="addresses in use on another node than their block's")
    one.add_argument("--show-configuration", action="store_true", help="strict affinity, block limit, cooldown")
    one.add_argument("--ip", type=_address, metavar="IP", help="whose this address is")
    told.output(parser, "text", "json", "csv")


async def answer(args: argparse.Namespace, context: Context) -> Told:
    """Raises UserError."""
    found = await state.read(context.cluster, READ)
    if args.ip:
        return of_address(found, args.ip)
    if args.show_borrowed:
        return borrowed(found)
    if args.show_configuration:
        return configuration(found)
    return usage(found, blocks=args.show_blocks)


def _address(text: str) -> Address:
    try:
        return ip_address(text.strip())
    except ValueError as error:
        near = text.split("/")[0]
        try:
            hint = f"Did you mean --ip {ip_address(near)}?"
        except ValueError:
            hint = "Give one address, for example --ip 10.244.1.7 or --ip fd00::1."
        raise UserError(f"{text!r} is not an IP address. {hint}") from error


# -- pools and blocks -------------------------------------------------------------------------------------------------


def usage(found: State, *, blocks: bool = False) -> Told:
    """The table of pools, with their blocks where asked for."""
    known = arithmetic.utilization(found)
    version = _version(found)
    columns = [("IPS IN USE", "in_use"), ("IPS RESERVED", "reserved"), ("IPS FREE", "free")]
    if not since(version, RESERVED_SINCE, unknown=True) and not any(one.counts.reserved for one in known.pools):
        columns.remove(("IPS RESERVED", "reserved"))
    rows: list[tuple[str, str, Counts]] = []
    for pool in known.pools:
        rows.append(("IP Pool", pool.cidr, pool.counts))
        rows += [("Block", one.cidr, one.counts) for one in pool.blocks if blocks]
    if known.outside and blocks:
        rows.append(("No IP Pool", "", _sum(known.outside)))
        rows += [("Block", one.cidr, one.counts) for one in known.outside]
    head = ("GROUPING", "CIDR", "IPS TOTAL", *(name for name, _ in columns))
    cells = [
        (kind, cidr, shown(one.addresses), *(_part(getattr(one, field), one.addresses) for _, field in columns))
        for kind, cidr, one in rows
    ]
    full = [one for one in known.pools if not one.counts.free]
    return Told(
        headline=_headline(known.pools, full),
        text=table(head, cells, version=version, numbers=head[2:]),
        notes=(*_bars(known.pools), *_oddities(known), *_unread(found, "ipreservations")),
        data=msgspec.to_builtins(known),
        rows=_csv(known),
        mark="cause" if full else "healthy",
    )


def _headline(pools: Sequence[PoolUse], full: Sequence[PoolUse]) -> Text:
    if not pools:
        return say("There is no IPPool, so Calico gives out no address.")
    if full:
        names = listed([one.name for one in full])
        return say("No address is left in {pools}; `ipam explain` says what would help.", pools=names)
    fullest = max(pools, key=lambda one: one.counts.addresses and one.counts.in_use / one.counts.addresses)
    return say(
        "{used} of {total} addresses of {pool} are in use, and no pool is fuller."
        if len(pools) > 1
        else "{used} of {total} addresses of {pool} are in use.",
        used=shown(fullest.counts.in_use),
        total=shown(fullest.counts.addresses),
        pool=fullest.name,
    )


def _part(part: int, whole: int) -> str:
    return f"{shown(part)} ({percent(part, whole)}%)"


def _sum(blocks: Sequence[BlockUse]) -> Counts:
    def total(field: str) -> int:
        return sum(getattr(one.counts, field) for one in blocks)

    return Counts(**{field: total(field) for field in Counts.__struct_fields__})


def _bars(pools: Sequence[PoolUse]) -> list[Text]:
    """A line a pool: how full it is, and how many of its blocks are taken, which is what ends first."""
    fullest = sorted(pools, key=lambda one: one.blocks_possible and -one.blocks_taken / one.blocks_possible)
    fullest.sort(key=lambda one: one.counts.addresses and -one.counts.in_use / one.counts.addresses)
    lines = [
        say(
            "{bar} {pool} ({cidr}): {used} of {total} addresses in use, {taken} of {possible} blocks of /{size} taken.",
            bar=arithmetic.bar(one.counts.in_use, one.counts.addresses),
            pool=one.name,
            cidr=one.cidr,
            used=shown(one.counts.in_use),
            total=shown(one.counts.addresses),
            taken=shown(one.blocks_taken),
            possible=shown(one.blocks_possible),
            size=one.block_size,
        )
        for one in fullest[:BARS]
    ]
    more = len(pools) - BARS
    return lines if more <= 0 else [*lines, say("{count} more pools are less full.", count=more)]


def _oddities(known: arithmetic.Utilization) -> list[Text]:
    """What the numbers of the table do not tell."""
    notes = []
    for one in known.pools:
        if one.deleting:
            notes.append(say("{pool} is being deleted: nobody gets a new address of it.", pool=one.name))
        elif one.disabled:
            notes.append(say("{pool} is disabled: nobody gets a new address of it.", pool=one.name))
        if one.counts.cooling:
            notes.append(
                say(
                    "Of the addresses in use of {pool}, {count} were released and are kept back for a while.",
                    pool=one.name,
                    count=one.counts.cooling,
                )
            )
        if one.other_sizes:
            notes.append(
                say(
                    "{count} blocks in {pool} are not of its present block size /{size}. Calico does not see them when "
                    "it takes a new block there, so the same address can be given out twice.",
                    pool=one.name,
                    count=one.other_sizes,
                    size=one.block_size,
                )
            )
    if known.outside:
        notes.append(
            say(
                "{count} blocks lie in no pool, with {used} addresses in use: {blocks}.",
                count=len(known.outside),
                used=_sum(known.outside).in_use,
                blocks=_some([one.cidr for one in known.outside]),
            )
        )
    return notes


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _csv(known: arithmetic.Utilization) -> tuple[tuple[str, ...], ...]:
    """Pools and blocks, a row each, numbers without anything beside them."""
    fields = Counts.__struct_fields__

    def row(kind: str, pool: str, cidr: str, affinity: str, counts: Counts) -> tuple[str, ...]:
        return kind, pool, cidr, affinity, *(str(getattr(counts, field)) for field in fields)

    return (
        ("grouping", "pool", "cidr", "affinity", *fields),
        *(
            line
            for pool in known.pools
            for line in (
                row("pool", pool.name, pool.cidr, "", pool.counts),
                *(row("block", pool.name, one.cidr, one.affinity, one.counts) for one in pool.blocks),
            )
        ),
        *(row("block", "", one.cidr, one.affinity, one.counts) for one in known.outside),
    )


# -- borrowed ---------------------------------------------------------------------------------------------------------


def borrowed(found: State) -> Told:
    """Addresses in use on another node than the one their block belongs to."""
    head = ("IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO")
    rows: list[tuple[str, ...]] = []
    unknown = 0
    for spec in arithmetic.blocks_of(found):
        cidr = ip_network(spec["cidr"])
        affinity = str(spec.get("affinity") or "")
        owner = affinity.partition(":")[2] if affinity.count(":") == 1 else affinity.split(":")[0]
        for ordinal, attribute in ipam.held(spec):
            about: Mapping[str, Any] = attribute.get("secondary") or {}
            if "node" not in about:
                unknown += not attribute.get("releasedAt")
            elif about["node"] != owner:
                kind, holder = _held_for(about)
                rows.append((str(cidr[ordinal]), str(about["node"]), str(cidr), owner, kind, holder))
    notes = []
    if unknown:
        notes.append(
            say(
                "Found {count} IP allocations without an explicit node association. Unable to determine if they are "
                "borrowed.",
                count=unknown,
            )
        )
    borrowers = {row[1] for row in rows}
    headline = (
        say("{count} addresses are borrowed, by {nodes}.", count=len(rows), nodes=_some(sorted(borrowers)))
        if rows
        else say("No address is borrowed.")
    )
    names = ("address", "node", "block", "block_owner", "type", "allocated_to")
    return Told(
        headline=headline,
        text=table(head, rows, version=_version(found)),
        notes=tuple(notes),
        data={"borrowed": [dict(zip(names, row, strict=True)) for row in rows], "unclassified": unknown},
        rows=(names, *rows),
    )


def _held_for(about: Mapping[str, Any]) -> tuple[str, str]:
    """(kind, namespace/name) of whom an address is for, as calicoctl has them."""
    namespace = about.get("namespace", "")
    if "vmi-name" in about:
        return "vmi", f"{namespace}/{about['vmi-name']}"
    if "pod" in about:
        return "pod", f"{namespace}/{about['pod']}"
    return str(about.get("type", "")), ""


# -- configuration ----------------------------------------------------------------------------------------------------


def configuration(found: State) -> Told:
    """IPAMConfig. Raises UserError where it cannot be read."""
    if found.unread("ipamconfigs"):
        raise UserError(
            f"The IPAM configuration cannot be read ({_why(found, 'ipamconfigs')}). "
            "Ask somebody who may get ipamconfigs.",
            status=3,
        )
    spec, version = found.spec("ipamconfigs"), _version(found)
    values = {
        name: spec.get(field, default)
        for name, field, default, first in FIELDS
        if field in spec or since(version, first, unknown=True)
    }
    rows = [(name, str(value).lower() if isinstance(value, bool) else str(value)) for name, value in values.items()]
    notes = []
    if not spec.get("maxBlocksPerHost"):
        notes.append(say("No limit is set, so Calico stops at {limit} blocks a node.", limit=ipam.BLOCKS_PER_NODE))
    return Told(
        headline=say("The IPAM configuration of the cluster."),
        text=table(("PROPERTY", "VALUE"), rows, version=version),
        notes=tuple(notes),
        data=values,
        rows=(("property", "value"), *rows),
    )


# -- one address ------------------------------------------------------------------------------------------------------


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """What one block says of an address in it."""

    block: str
    affinity: str
    state: str  # "in use" | "in cooldown" | "free"
    handle: str = ""
    active: dict[str, str] = {}
    alternate: dict[str, str] = {}
    released_at: str = ""


def of_address(found: State, address: Address) -> Told:
    """Whose an address is: what every block that contains it says, whatever its pool's block size and state."""
    pools = arithmetic.pools_of(found)
    holdings = [_holding(spec, address) for spec in arithmetic.blocks_of(found) if address in ip_network(spec["cidr"])]
    taken = [one for one in holdings if one.state != "free"]
    lines = [line for one in taken for line in _lines(address, one)]
    pool = ipam.pool_of(address, pools)
    if not lines:
        lines = [f"{address} is not assigned"]
    data = {
        "address": str(address),
        "pool": pool.name if pool else "",
        "state": taken[0].state if taken else "free" if holdings or pool else "outside",
        "blocks": msgspec.to_builtins(holdings),
    }
    return Told(
        headline=_whose(address, taken),
        text="\n".join(lines),
        notes=(*_where(found, address, holdings, pool is not None), *_unread(found, "ipreservations")),
        data=data,
        rows=(
            ("address", "block", "affinity", "state", "handle", "attributes"),
            *(
                (
                    str(address), one.block, one.affinity, one.state, one.handle,
                    " ".join(f"{key}={value}" for key, value in sorted(one.active.items())),
                )
                for one in holdings
            ),
        ),
        mark="cause" if len(taken) > 1 else "healthy",
    )  # fmt: skip


def _holding(spec: Mapping[str, Any], address: Address) -> Holding:
    cidr = ip_network(spec["cidr"])
    about: dict[str, Any] = {"block": str(cidr), "affinity": str(spec.get("affinity") or "")}
    attribute = dict(ipam.held(spec)).get(int(address) - int(cidr.network_address))
    if attribute is None:
        return Holding(state="free", **about)
    if attribute.get("releasedAt"):
        return Holding(state="in cooldown", released_at=str(attribute["releasedAt"]), **about)
    return Holding(
        state="in use",
        handle=str(attribute.get("handle_id") or ""),
        active={str(key): str(value) for key, value in (attribute.get("secondary") or {}).items()},
        alternate={str(key): str(value) for key, value in (attribute.get("alternateOwnerAttrs") or {}).items()},
        **about,
    )


def _lines(address: Address, one: Holding) -> list[str]:
    """In calicoctl's words."""
    if one.state == "in cooldown":
        return [f"IP {address} is in cooldown"]
    lines = [f"IP {address} is in use", f"Handle ID: {one.handle or '<none>'}"]
    if not one.active:
        lines.append("No Active Owner attributes defined")
    for title, attributes in (("Active", one.active), ("Alternate", one.alternate)):
        if attributes:
            lines.append(f"{title} Owner Attributes:")
            lines += [f"  {key}: {value}" for key, value in sorted(attributes.items())]
    return lines


def _whose(address: Address, taken: Sequence[Holding]) -> Text:
    if len(taken) > 1:
        return say("{address} is held in {count} blocks at once.", address=address, count=len(taken))
    if not taken:
        return say("{address} is not assigned.", address=address)
    if taken[0].state == "in cooldown":
        return say("{address} was released and is in its cooldown.", address=address)
    kind, holder = _held_for(taken[0].active)
    return say(
        "{address} is in use by {holder}.", address=address, holder=holder or taken[0].active.get("node") or kind or "?"
    )


def _where(found: State, address: Address, holdings: Sequence[Holding], pooled: bool) -> list[Text]:
    """Pool and block, and what calicoctl would not have told."""
    notes = []
    pool = ipam.pool_of(address, arithmetic.pools_of(found))
    if not pooled and not holdings:
        return [say("{address} lies in no pool and in no block.", address=address)]
    for one in holdings:
        node = one.affinity.partition(":")[2]
        about = {"address": address, "block": one.block, "owner": node, "pool": pool.name if pool else ""}
        if pool and node:
            notes.append(say("{address} lies in block {block} of {owner}, in pool {pool}.", **about))
        elif pool:
            notes.append(say("{address} lies in block {block}, which is nobody's, in pool {pool}.", **about))
        else:
            notes.append(say("{address} lies in block {block} ({owner}), and in no pool.", **about))
        user = one.active.get("node", "")
        if one.state == "in use" and user and user != node:
            notes.append(say("{node} has borrowed it.", node=user))
        if one.released_at:
            cooldown = int(found.spec("ipamconfigs").get("ipCooldownSeconds") or 0)
            notes.append(
                say(
                    "It was released at {time} and is given to nobody for {seconds} s from then on."
                    if cooldown
                    else "It was released at {time}.",
                    time=one.released_at,
                    seconds=cooldown,
                )
            )
        if one.state == "in use" and pool and ip_network(one.block).prefixlen != pool.block_size:
            notes.append(
                say(
                    "Block {block} is not of the pool's present block size /{size}, so calicoctl would say that "
                    "{address} is not assigned.",
                    block=one.block,
                    size=pool.block_size,
                    address=address,
                )
            )
    if pool and not holdings:
        notes.append(say("{address} lies in pool {pool} and in no block.", address=address, pool=pool.name))
    if pool and pool.disabled and any(one.state == "in use" for one in holdings):
        notes.append(
            say(
                "Pool {pool} is disabled, so calicoctl would say that {address} is not assigned.",
                pool=pool.name,
                address=address,
            )
        )
    if any(address in one for one in ipam.reservations(found.all("ipreservations"))):
        notes.append(say("An IPReservation keeps {address} from being given out.", address=address))
    return notes


# -- what all share ---------------------------------------------------------------------------------------------------


def _version(found: State) -> str:
    return str(found.spec("clusterinformations").get("calicoVersion") or "")


def _why(found: State, plural: str) -> str:
    return next((one.reason for one in found.blind if one.look == plural), "not asked for")


def _unread(found: State, plural: str) -> list[Text]:
    """What could not be read and would have changed the numbers."""
    for one in found.blind:
        if one.look == plural:
            reason = one.message or one.reason
            return [
                say(
                    "The {kind} could not be read ({reason}): what they keep back counts as free here.",
                    kind=plural,
                    reason=reason,
                )
            ]
    return []
