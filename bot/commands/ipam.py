"""`calico-why ipam ...`: whose addresses are used, which are lacking or leaked, and what would help."""

from __future__ import annotations

import argparse

from bot.ipam import check, explain, plan, release, show
from bot.told import Context, Told

HELP = "ipam show|explain|plan|check|release: addresses and blocks, for example: ipam show --show-blocks"

PARTS = {"show": show, "explain": explain, "plan": plan, "check": check, "release": release}


def add_words(parser: argparse.ArgumentParser) -> None:
    below = parser.add_subparsers(dest="part", required=True, metavar="|".join(PARTS))
    for name, part in PARTS.items():
        part.add_words(below.add_parser(name, help=part.HELP, description=part.HELP))


def check_words(args: argparse.Namespace, written: str) -> None:
    """Raises UserError."""
    if args.part == "check":
        check.check_words(args, written)


async def answer(args: argparse.Namespace, context: Context) -> Told:
    found: Told = await PARTS[args.part].answer(args, context)
    return found
