"""`calico-why delete KIND NAME`: a resource of Calico's deleted, once a second person approved it."""

from __future__ import annotations

import argparse

from bot import told
from bot.resources import change
from bot.resources.manifest import writable
from bot.told import Context, Told

HELP = "delete KIND NAME: have a resource of Calico deleted, once approved, for example: delete gnp deny-all"


def add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", type=writable, metavar="KIND")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("-n", dest="within", metavar="NAMESPACE", default="", help="of a policy or a network set")
    parser.add_argument("--confirm", metavar="NAME", default="", help="its name again, for a pool that is in use")
    told.output(parser, "text", "json", "yaml")


async def answer(args: argparse.Namespace, context: Context) -> Told:
    return await change.deleted(args.kind, args.name, args.within, args.confirm, context)
