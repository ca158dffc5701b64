"""`calico-why reject fx-NAME [REASON]`: says no to a change, in a terminal."""

from __future__ import annotations

import argparse

from bot import settings as connection
from fixes.request import Phase

HELP = "reject fx-NAME [REASON]: refuse a proposed fix"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="fx-NAME", help="name of the fix request, as `calico-why fixes` lists it")
    parser.add_argument("reason", nargs="*", default=[], metavar="REASON", help="why not; everybody can read it")
    connection.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 when this very call did it, 3 when it may not or cannot be done any more. Raises UserError."""
    from bot.terminal import decide

    return decide(args, Phase.REJECTED)
