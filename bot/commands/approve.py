"""`calico-why approve fx-NAME`: one of the two people a change needs, in a terminal."""

from __future__ import annotations

import argparse

from bot import settings as connection
from fixes.request import Phase

HELP = "approve fx-NAME: have a proposed fix carried out"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="fx-NAME", help="name of the fix request, as `calico-why fixes` lists it")
    connection.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 when this very call did it, 3 when it may not or cannot be done any more. Raises UserError."""
    from bot.terminal import decide

    return decide(args, Phase.APPROVED)
