"""`calico-why fixes`: the fix requests and where each of them is, all of one, and the switch that stops them all."""

from __future__ import annotations

import argparse
import asyncio

from bot import settings as connection
from bot.errors import UserError

HELP = "fixes [show fx-NAME | off | on]: what was asked to be changed, and where it is"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("word", nargs="?", choices=("show", "off", "on"), help="all of one; stop all fixes; allow them")
    parser.add_argument("name", nargs="?", metavar="fx-NAME", help="of the one to show")
    parser.add_argument("--reason", default="", help="why fixes are switched off; everybody can read it")
    connection.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 when the requests could be read, or the switch was turned. Raises UserError."""
    if (args.word == "show") != bool(args.name):
        raise UserError("The words are: fixes, fixes show fx-NAME, fixes off [--reason WHY], fixes on.")
    settings = connection.from_arguments(args)
    if args.word in ("off", "on"):
        from bot.terminal import turn

        return turn(settings, args.word == "on", args.reason)
    print(asyncio.run(_told(settings, args.name)))
    return 0


async def _told(settings: connection.Settings, name: str | None) -> str:
    from bot.terminal import opened
    from bot.trail import fixes, request

    async with opened(settings) as store:
        return request(await store.get(name)) if name else await fixes(store)
