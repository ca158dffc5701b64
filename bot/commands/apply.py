"""`calico-why apply`: resources as they are to be, once a second person approved it."""

from __future__ import annotations

import argparse

from bot.resources import writing
from bot.told import Context, Told

HELP = "apply -f FILE: have resources of Calico made or changed, once approved, for example: apply -f policy.yaml"
TAKES_TEXT = True


def add_words(parser: argparse.ArgumentParser) -> None:
    writing.add_words(parser)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    writing.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 asked for, 2 refused before anybody is asked. Raises UserError."""
    return writing.run(answer, args)


async def answer(args: argparse.Namespace, context: Context) -> Told:
    return await writing.answer("apply", args, context)
