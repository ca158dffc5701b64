"""What `create`, `apply` and `replace` share: where the resources come from; without it each would read its own way."""

from __future__ import annotations

import argparse

from bot import asking, told
from bot.errors import UserError
from bot.resources import change, manifest
from bot.told import Context, Told


def add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-f",
        dest="file",
        metavar="FILE",
        default="",
        help="YAML or JSON; - for what is piped in; in Slack a code block",
    )
    parser.add_argument("-n", dest="within", metavar="NAMESPACE", default="", help="of what says none of its own")
    told.output(parser, "text", "json", "yaml")


def check_words(verb: str, args: argparse.Namespace, written: str) -> None:
    """args.wanted is what is to be written then. Raises UserError."""
    args.wanted = manifest.read(_text(verb, args, written), args.within)


async def answer(verb: str, args: argparse.Namespace, context: Context) -> Told:
    """Raises UserError before any request is made."""
    return await change.written(verb, args.wanted, context)


def _text(verb: str, args: argparse.Namespace, written: str) -> str:
    if not written:
        if not args.file:
            raise UserError(f"Say what: {verb} -f FILE, or {verb} -f - for what is piped in; in Slack a code block.")
        return manifest.from_file(args.file)
    if args.file:
        raise UserError(f"I cannot read {args.file} from Slack. Write the YAML after the word, in a code block.")
    text = manifest.from_slack(asking.with_text(written)[1])
    if not text.strip():
        raise UserError(f"Write the YAML after the word: {verb} and a code block (```) with the resource.")
    return text
