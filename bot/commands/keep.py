"""`calico-why keep A B [PORT/tcp|udp]`: asks why, and keeps the scene of both nodes with the answer, as one file."""

from __future__ import annotations

import argparse

import msgspec

from bot.bundle import keep, told
from bot.errors import UserError
from bot.reply import wording
from bot.told import Context, Told, output
from bot.words import parse
from facts import CalicoNode, Leg, say

HELP = (
    "keep A B [PORT/tcp|udp]: the scene of a fault as one file: the answer, all about both nodes, Calico's resources; "
    "for example: keep shop/cart shop/db 5432/tcp"
)


def add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="+", metavar="WORD", help="as of `why`: keep shop/cart shop/db 5432/tcp")
    output(parser, "text", "json")


def check_words(args: argparse.Namespace, _written: str) -> None:
    """Raises UserError for what is no question."""
    try:
        parse(args.words)
    except UserError as error:
        raise UserError(error.sentence.replace(" why ", " keep "), status=error.status) from None


async def answer(args: argparse.Namespace, context: Context) -> Told:
    """Raises UserError."""
    investigation = await context.investigate(args.words)
    facts = investigation.diagnosis.facts
    ends = [node for leg in facts if isinstance(leg, Leg) for node in (leg.source_node, leg.target_node)]
    where = {one.name: one.internal_address for one in facts if isinstance(one, CalicoNode)}
    wanted = {node: where[node] for node in dict.fromkeys([*ends, *where]) if node in where}
    kept = await keep(
        wanted,
        cluster=context.cluster,
        probes=context.probes,
        progress=context.progress,
        investigation=investigation,
    )
    said = told(kept)
    answered = say("The answer was: {headline}", headline=wording.headline(investigation))
    again = say("`calico-why replay {file}` judges it again, offline.", file=kept.file.name)
    return msgspec.structs.replace(said, notes=(answered, *said.notes, again))
