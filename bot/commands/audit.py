"""`calico-why audit [fx-NAME]`: who asked, decided, was refused and did what; `audit verify`: is it whole."""

from __future__ import annotations

import argparse
import asyncio

from bot import settings as connection
from bot.errors import COULD_NOT_JUDGE

HELP = "audit [fx-NAME] | audit verify: who decided and did what"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="*",
        metavar="fx-NAME | verify [sha256:HEAD]",
        help="the records of one request, or whether the whole trail is unchanged and nothing is missing in it; HEAD: "
        "a hash that was posted in a thread, which then has to be there",
    )
    parser.add_argument("--jsonl", action="store_true", help="each record as a line of JSON")
    connection.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0, or 3 where the trail is broken. Raises UserError."""
    good, text = asyncio.run(_audit(args.words, args.jsonl, connection.from_arguments(args)))
    if text:
        print(text)
    return 0 if good else COULD_NOT_JUDGE


async def _audit(words: list[str], jsonl: bool, settings: connection.Settings) -> tuple[bool, str]:
    from bot.terminal import opened
    from bot.trail import audit

    async with opened(settings) as store:
        return await audit(store, words, jsonl=jsonl, shown=0)
