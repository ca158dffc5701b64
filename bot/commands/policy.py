"""`calico-why policy A B [PORT/tcp|udp]`: which policies stand between the two, asked of the API alone."""

from __future__ import annotations

import argparse
import asyncio
import sys

from bot import language as languages
from bot import settings as connection
from bot.errors import COULD_NOT_JUDGE
from bot.second_opinion import SecondOpinion, second_opinion, understand
from bot.words import Asked

HELP = "policy A B [PORT/tcp|udp]: what the policies in the API let pass from A to B; no packet is sent, no probe asked"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [NAMESPACE/]POD|NODE|IP [NAMESPACE/]POD|SERVICE|NODE|IP [PORT/tcp|udp] [options]"
    parser.add_argument("words", nargs="*", metavar="WORD", help="who sends, to whom, and a port of theirs (5432/tcp)")
    parser.add_argument("-o", "--output", choices=("text", "json", "slack"), default="text", help="form of the answer")
    parser.add_argument("--exit-code", action="store_true", help="exit with 1 when the policies deny it")
    languages.add_argument(parser)
    connection.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 answered, 3 when it could not be judged; with --exit-code 1 where a way there is denied. Raises UserError."""
    asked, language = understand(args.words), connection.language(args)
    settings = connection.from_arguments(args)
    with connection.about(settings):
        found = asyncio.run(_asked(asked, settings))
    sys.stdout.write(_form(found, args.output, language))
    if found.verdict == "unknown":
        return COULD_NOT_JUDGE
    return 1 if args.exit_code and any(walk.verdict == "deny" for walk in found.walks) else 0


async def _asked(asked: Asked, settings: connection.Settings) -> SecondOpinion:
    from bot.sources.kubernetes import Cluster

    async with Cluster(settings) as cluster:
        return await second_opinion(asked, cluster=cluster)


def _form(found: SecondOpinion, form: str, language: languages.Language) -> str:
    from bot.reply import second_opinion as reply

    if form == "json":
        return reply.json(found)
    if form == "slack":
        import msgspec

        return (
            msgspec.json.format(msgspec.json.encode([reply.slack(found, language=language)]), indent=2).decode() + "\n"
        )
    return reply.text(found, language)
