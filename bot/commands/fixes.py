"""`calico-why fixes`: the fix requests and where each of them is, all of one, and the switch that stops them all."""

from __future__ import annotations

import argparse
import asyncio

from bot import settings as connection

HELP = "fixes [show fx-NAME | now fx-NAME | off | on]: what was asked to be changed, and where it is"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="show fx-NAME: all of one; now fx-NAME: ask for it without its second look; off [REASON]: stop all fixes; "
        "on: allow them",
    )
    parser.add_argument("--reason", default="", help="why fixes are switched off; everybody can read it")
    connection.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 when the requests could be read, or the switch was turned. Raises UserError."""
    from bot.terminal import name_cluster, turn
    from bot.trail import fixes_said

    word, rest = fixes_said(args.words)
    settings = connection.from_arguments(args)
    if word in ("off", "on"):
        return turn(settings, word == "on", rest or args.reason)
    with connection.about(settings):
        print(asyncio.run(_hurried(settings, rest) if word == "now" else _told(settings, rest)))
    name_cluster(settings)
    return 0


async def _told(settings: connection.Settings, name: str) -> str:
    from bot.terminal import opened
    from bot.trail import fixes, request

    async with opened(settings) as store:
        return request(await store.get(name)) if name else await fixes(store)


async def _hurried(settings: connection.Settings, name: str) -> str:
    from bot.fix_requests import at_once
    from bot.terminal import opened

    async with opened(settings) as store:
        request = await at_once(name, store, await store.whoami())
    return (
        f"{request.name} asks for the same as {name} without the second look, and {name} still waits. Somebody else "
        f"approves it: calico-why approve {request.name}"
    )
