"""`calico-why patch KIND NAME -p PATCH`: one change of one resource, once a second person approved it."""

from __future__ import annotations

import argparse

from bot import asking, told
from bot.errors import UserError
from bot.resources import change, manifest, yaml
from bot.told import Context, Told

HELP = (
    "patch KIND NAME -p PATCH: have a resource changed, once approved, for example: "
    'patch ippool default-ipv4-ippool -p \'{"spec": {"natOutgoing": true}}\''
)
TAKES_TEXT = True


def add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", type=manifest.writable, metavar="KIND")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("-p", "--patch", metavar="PATCH", nargs="?", const="", default="", help="JSON or YAML")
    parser.add_argument("--type", choices=("merge", "json", "strategic"), default="merge", help="form of PATCH (merge)")
    parser.add_argument("-n", dest="within", metavar="NAMESPACE", default="", help="of a policy or a network set")
    told.output(parser, "text", "json", "yaml")


def check_words(args: argparse.Namespace, written: str) -> None:
    """args.patch is what it says then. Raises UserError."""
    if args.type == "strategic":
        raise UserError(
            "A strategic patch needs merge keys, and Calico's resources have none. Use --type merge, which replaces "
            "lists as a whole, or --type json."
        )
    text = manifest.from_slack(asking.with_text(written)[1]) if written else args.patch
    found = yaml.documents(text)
    if len(found) != 1:
        raise UserError("Say what is to be changed: patch KIND NAME -p '{\"spec\": ...}'")
    (args.patch,) = found


async def answer(args: argparse.Namespace, context: Context) -> Told:
    return await change.patch(args.kind, args.name, args.within, args.patch, args.type, context)
