"""`node diags`: all that is to be known of nodes in one file; without it somebody would log in to each of them."""

from __future__ import annotations

import argparse

from bot.bundle import NODES, keep, told
from bot.errors import UserError
from bot.node.places import address, nodes
from bot.told import Context, Told, output

HELP = "everything about nodes in one file, read by their probes, for example: node diags node-a node-b"


def add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("nodes", nargs="*", metavar="NODE", help=f"names of nodes; of all for none, {NODES} at most")
    output(parser, "text", "json")


async def answer(args: argparse.Namespace, context: Context) -> Told:
    """Raises UserError."""
    found = await nodes(context.cluster, args.nodes)
    if len(found) > NODES:
        raise UserError(
            f"That are {len(found)} nodes, and a bundle holds {NODES} of them. Name those it is about: "
            f"node diags {' '.join(list(found)[:2])}"
        )
    where = {name: address(one) for name, one in found.items()}
    kept = await keep(where, cluster=context.cluster, probes=context.probes, progress=context.progress)
    return told(kept)
