"""`calico-why node ...`: how Calico does on the nodes, and all about them in one file."""

from __future__ import annotations

import argparse

from bot.node import diags, status
from bot.told import Context, Told

HELP = "node status|diags [NODE...]: how Calico does on the nodes, for example: node status node-a"

PARTS = {"status": status, "diags": diags}


def add_words(parser: argparse.ArgumentParser) -> None:
    below = parser.add_subparsers(dest="part", required=True, metavar="|".join(PARTS))
    for name, part in PARTS.items():
        part.add_words(below.add_parser(name, help=part.HELP, description=part.HELP))


async def answer(args: argparse.Namespace, context: Context) -> Told:
    found: Told = await PARTS[args.part].answer(args, context)
    return found
