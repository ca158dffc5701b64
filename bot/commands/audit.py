"""`calico-why audit [fx-NAME]`: who asked, decided, was refused and did what; `audit verify`: is it whole."""

from __future__ import annotations

import argparse
import asyncio

from bot import settings as connection
from bot.errors import COULD_NOT_JUDGE

HELP = "audit [fx-NAME] | audit verify | audit export: who decided and did what"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="fx-NAME: the records of one request; verify [sha256:HEAD]: whether the whole trail is unchanged and "
        "nothing is missing in it, HEAD a hash that was posted in a thread, which then has to be there; export "
        "[fx-NAME]: each record as a line of JSON",
    )
    parser.add_argument("--jsonl", action="store_true", help="the same as export")
    connection.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0, or 3 where the trail is broken. Raises UserError."""
    from bot.terminal import name_cluster
    from bot.trail import audit_said

    audit_said(args.words)  # what cannot be meant needs no cluster
    settings = connection.from_arguments(args)
    with connection.about(settings):
        good, text = asyncio.run(_audit(args.words, args.jsonl, settings))
    if text:
        print(text)
    name_cluster(settings)
    return 0 if good else COULD_NOT_JUDGE


async def _audit(words: list[str], jsonl: bool, settings: connection.Settings) -> tuple[bool, str]:
    from bot.terminal import opened
    from bot.trail import audit

    async with opened(settings) as store:
        return await audit(store, words, jsonl=jsonl, shown=0)
