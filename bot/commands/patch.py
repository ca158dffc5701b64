"""`calico-why patch KIND NAME -p PATCH`: one change of one resource, once a second person approved it."""

from __future__ import annotations

import argparse

from bot import asking, told
from bot.errors import UserError
from bot.resources import change, manifest, yaml
from bot.resources.names import plural_of
from bot.told import Context, Told

HELP = (
    "patch KIND NAME -p PATCH: have a resource changed, once approved, for example: "
    'patch ippool default-ipv4-ippool -p \'{"spec": {"natOutgoing": true}}\''
)
TAKES_TEXT = True


def add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="KIND")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("-p", "--patch", metavar="PATCH", nargs="?", const="", default="", help="JSON or YAML")
    parser.add_argument("--type", choices=("merge", "json", "strategic"), default="merge", help="form of PATCH (merge)")
    parser.add_argument("-n", dest="within", metavar="NAMESPACE", default="", help="of a policy or a network set")
    told.output(parser, "text", "json", "yaml")


async def answer(args: argparse.Namespace, context: Context) -> Told:
    if args.type == "strategic":
        raise UserError(
            "A strategic patch needs merge keys, and Calico's resources have none. Use --type merge, which replaces "
            "lists as a whole, or --type json."
        )
    text = manifest.from_slack(asking.with_text(context.written)[1]) if context.written else args.patch
    found = yaml.documents(text)
    if len(found) != 1:
        raise UserError("Say what is to be changed: patch KIND NAME -p '{\"spec\": ...}'")
    return await change.patch(plural_of(args.kind), args.name, args.within, found[0], args.type, context)
