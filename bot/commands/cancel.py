"""`calico-why cancel fx-NAME`: takes a request back, in a terminal; whoever asked may, and so may who can approve."""

from __future__ import annotations

import argparse

from bot import settings as connection
from fixes.request import Phase

HELP = "cancel fx-NAME [REASON]: take a proposed fix back"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="fx-NAME", help="name of the fix request, as `calico-why fixes` lists it")
    parser.add_argument("reason", nargs="*", default=[], metavar="REASON", help="why; everybody can read it")
    connection.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 when this very call did it, 3 when it may not or cannot be done any more. Raises UserError."""
    from bot.terminal import decide

    return decide(args, Phase.CANCELLED)
