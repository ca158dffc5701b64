"""`calico-why fixes`: the fix requests and where each of them is."""

from __future__ import annotations

import argparse
import asyncio

from bot import settings as connection
from bot.approvals import listing

HELP = "fixes: what was asked to be changed, and where it is"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    connection.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 when the requests could be read. Raises UserError."""
    print(asyncio.run(_listing(connection.from_arguments(args))))
    return 0


async def _listing(settings: connection.Settings) -> str:
    from bot.terminal import opened

    async with opened(settings) as store:
        return listing(await store.all())
