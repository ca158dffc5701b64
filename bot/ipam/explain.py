"""`ipam explain`: would the next pod of each node get an address, and its tunnel, and why not; without it only who can
add up blocks, limits and reservations in their head could tell."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from ipaddress import ip_network
from typing import Any

import msgspec

from bot import told
from bot.errors import COULD_NOT_JUDGE
from bot.ipam import state
from bot.ipam.arithmetic import shown
from bot.ipam.outlook import NAMED, Explanation, NodeOutlook, Outlook, PoolOutlook, explain, some
from bot.ipam.state import State
from bot.ipam.table import table
from bot.told import Context, Told
from facts import Text, say

HELP = "whether each node's next pod and tunnel would get an address, and why not, for example: ipam explain node-a"

READ = (
    *state.NEEDED,
    "ipamconfigs",
    "ipreservations",
    "clusterinformations",
    "nodes",
    "pods",
    "namespaces",
)
HOW = {"own": "yes, own block", "new": "yes, new block", "reclaimed": "yes, an empty block", "borrowed": "yes, borrows"}
WHY = {
    "no_pool": "NO, no pool",
    "full": "NO, all full",
    "block_limit": "NO, block limit",
    "auto_allocate": "NO, takes no block",
    "strict_affinity": "NO, strict affinity",
    "windows": "NO, not strict",
}


def add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("nodes", nargs="*", metavar="NODE", help="these nodes only")
    parser.add_argument("--pods-of", metavar="NAMESPACE", default="", help="pods of this namespace only")
    told.output(parser, "text", "json", "csv")


async def answer(args: argparse.Namespace, context: Context) -> Told:
    """Raises UserError."""
    found = await state.read(context.cluster, READ)
    return said(found, explain(found, args.nodes, args.pods_of))


def said(found: State, known: Explanation) -> Told:
    """The explanation as an answer."""
    pods = [one for one in known.nodes if one.pod.why]
    tunnels = [(one, tunnel) for one in known.nodes for tunnel in one.tunnels if tunnel.why and not tunnel.address]
    unread = [one for one in found.blind if one.look in ("ipreservations", "pods", "namespaces")]
    sure = not known.foreign and bool(known.nodes) and not any(one.look == "ipreservations" for one in unread)
    trouble = bool(pods or tunnels)
    return Told(
        headline=_headline(known, pods, tunnels, sure),
        concludes=True,
        text="\n\n".join(_tables(known)),
        notes=(
            *(() if known.foreign else (*known.help, *_warnings(known))),
            *(_blind(one.look, one.message or one.reason) for one in unread),
        ),
        data=_data(known),
        rows=_csv(known),
        mark="unknown" if not sure else "cause" if trouble else "healthy",
        status=0 if sure else COULD_NOT_JUDGE,
    )


def _data(known: Explanation) -> dict[str, Any]:
    plain = {name: getattr(known, name) for name in Explanation.__struct_fields__ if name != "help"}
    return {**msgspec.to_builtins(plain), "help": [str(one) for one in known.help]}


def _headline(
    known: Explanation, pods: Sequence[NodeOutlook], tunnels: Sequence[tuple[NodeOutlook, Outlook]], sure: bool
) -> Text:
    count = len({one.node for one in known.nodes})
    if not known.nodes:
        return say("There is no IPPool, so Calico gives out no address here; what another IPAM does is not seen.")
    if known.foreign:
        return say("Pods here have addresses that are not of Calico's IPAM, so its pools say nothing of the next one.")
    if pods:
        names = some(list(dict.fromkeys(one.node for one in pods)))
        return say("The next pod would get no address on {nodes}.", nodes=names)
    if tunnels:
        names = some(list(dict.fromkeys(one.node for one, _ in tunnels)))
        return say("{nodes} would get no tunnel address, so other nodes do not reach the pods there.", nodes=names)
    if not sure:
        return say("What IPReservations keep back is not known, so nobody can say who would get an address.")
    borrowing = some(list(dict.fromkeys(one.node for one in known.nodes if one.pod.how == "borrowed")))
    if borrowing:
        return say("The next pod would get an address everywhere; {nodes} would borrow it.", nodes=borrowing)
    return (
        say("The next pod would get an address on each of {count} nodes.", count=count)
        if count > 1
        else say("The next pod would get an address on {node}.", node=known.nodes[0].node)
    )


NO_TUNNEL = (
    "{node} has no {kind} address and gets none: other nodes do not reach its pods through that tunnel, and the part "
    "of calico-node that asks for it stops and starts until one is left."
)
TUNNEL_LEFT = (
    "{node} has no {kind} address, so other nodes do not reach its pods through that tunnel. One is left: calico-node "
    "asks for it when it starts, or when an IPPool changes."
)


def _warnings(known: Explanation) -> list[Text]:
    """What is not trouble yet, or is that already in another way."""
    notes = []
    for node in known.nodes:
        for one in node.tunnels:
            about = {"node": node.node, "kind": one.kind, "address": one.address}
            if not one.address:
                notes.append(say(NO_TUNNEL if one.why else TUNNEL_LEFT, node=node.node, kind=one.kind))
            elif not one.held:
                notes.append(
                    say("IPAM does not hold the {kind} address {address} for {node}: a pod may get it.", **about)
                )
            elif one.why:
                notes.append(say("If {node} lost its {kind} address {address}, it would get no other.", **about))
    shown_notes = notes[:NAMED]
    if len(notes) > NAMED:
        shown_notes.append(
            say("{count} more nodes have trouble with their tunnel addresses.", count=len(notes) - NAMED)
        )
    return [*shown_notes, *_blocks_left(known)]


def _blocks_left(known: Explanation) -> Iterable[Text]:
    """Who borrows, and where there are more nodes than blocks: the runbook's alarm."""
    if borrowing := list(dict.fromkeys(one.node for one in known.nodes if one.pod.how == "borrowed")):
        yield say(
            "No block is left for {nodes}: pods there get addresses of other nodes' blocks, each a route of its own.",
            nodes=some(borrowing),
        )
    for family in (4, 6):
        waiting = {one.node for one in known.nodes if one.family == family and not one.blocks and one.pod.how}
        waiting -= set(borrowing)
        pools = [one for one in known.pools if not one.disabled and ip_network(one.cidr).version == family]
        left = sum(one.blocks_left for one in pools)
        if len(waiting) > left:
            yield say(
                "Nodes without a block: {nodes}. Blocks that are left: {left}.",
                nodes=some(sorted(waiting)),
                left=shown(left),
            )


def _blind(look: str, reason: Any) -> Text:
    return say("Could not read {kind}: {reason}.", kind=look, reason=reason)


def _pool_table(known: Explanation) -> str:
    head = ("POOL", "CIDR", "ADDRESSES", "FREE", "BLOCK", "TAKEN", "NODES", "STATE")
    rows = [
        (
            one.name,
            one.cidr,
            shown(one.addresses),
            shown(one.free),
            f"/{one.block_size}",
            f"{shown(one.blocks_taken)} of {shown(one.blocks_possible)}",
            str(one.nodes),
            _state(one),
        )
        for one in known.pools
    ]
    return table(head, rows, numbers={"ADDRESSES", "FREE", "TAKEN", "NODES"})


def _tables(known: Explanation) -> Iterable[str]:
    if known.pools:
        yield _pool_table(known)
    if known.nodes and not known.foreign:
        yield _node_table(known)


def _state(one: PoolOutlook) -> str:
    if one.disabled:
        return "disabled"
    if not one.free:
        return "full"
    return "all blocks taken" if not one.blocks_left else ""


def _node_table(known: Explanation) -> str:
    families = len({one.family for one in known.nodes}) > 1
    grouped = any(one.namespaces for one in known.nodes)
    tunnels = any(one.tunnels for one in known.nodes)
    head = ("NODE", *(["IP"] if families else []), *(["NAMESPACES"] if grouped else []), "BLOCKS", "FREE", "NEXT POD")
    head += ("TUNNEL", "NEXT TUNNEL ADDRESS") if tunnels else ()
    rows = []
    for one in sorted(known.nodes, key=lambda one: (not _troubled(one), one.node, one.family)):
        cells = [one.node, *([f"v{one.family}"] if families else []), *([some(one.namespaces)] if grouped else [])]
        cells += [str(one.blocks), str(one.free), HOW.get(one.pod.how) or WHY[one.pod.why]]
        if tunnels:
            cells.append(", ".join(_has(tunnel) for tunnel in one.tunnels))
            cells.append(", ".join(dict.fromkeys(HOW.get(each.how) or WHY[each.why] for each in one.tunnels)))
        rows.append(tuple(cells))
    return table(head, rows)


def _troubled(one: NodeOutlook) -> bool:
    return bool(one.pod.why) or any(tunnel.why or not tunnel.address or not tunnel.held for tunnel in one.tunnels)


def _has(one: Outlook) -> str:
    if not one.address:
        return f"{one.kind} none"
    return f"{one.kind} {one.address}" + (f" of {one.lender}" if one.lender else "")


def _csv(known: Explanation) -> tuple[tuple[str, ...], ...]:
    """A row for each address that is asked for next."""
    head = ("node", "family", "namespaces", "for", "has", "blocks", "free", "next", "how", "why")
    return (
        head,
        *(
            (
                node.node, str(node.family), " ".join(node.namespaces), one.kind, one.address, str(node.blocks),
                str(node.free), "yes" if one.how else "no", one.how, one.why,
            )
            for node in known.nodes
            for one in (node.pod, *node.tunnels)
        ),
    )  # fmt: skip
