"""`calico-why get KIND [NAME...]`: Calico's resources as calicoctl shows them, from Slack and a terminal alike."""

from __future__ import annotations

import argparse

from bot import told
from bot.errors import UserError
from bot.resources import table
from bot.resources.names import NODES, kind_of, namespaced, plural_of
from bot.resources.reading import default_asn, named, resources
from bot.told import Context, Told
from facts import say

HELP = "get KIND [NAME...]: Calico's resources, for example: get ippools -o wide"
DEFAULT = "default"  # namespace, where none is given


def add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="KIND", type=plural_of, help="a kind in one of its names: ippool, ipp, ippools")
    parser.add_argument("names", metavar="NAME", nargs="*", default=[], help="of these names only")
    parser.add_argument(
        "-n", dest="within", metavar="NAMESPACE", default="", help=f"of policies, sets and endpoints ({DEFAULT})"
    )
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="of all namespaces")
    told.output(parser, "text", "wide", "yaml", "json")


def check_words(args: argparse.Namespace, _written: str) -> None:
    """Raises UserError."""
    if args.names and args.all_namespaces and namespaced(args.kind):
        raise UserError("A name is looked for in one namespace: write -n NAMESPACE, or leave the name out.")


async def answer(args: argparse.Namespace, context: Context) -> Told:
    plural = args.kind
    placed = namespaced(plural)
    namespace = "" if args.all_namespaces or not placed else args.within or DEFAULT
    cluster = context.cluster
    if args.names:
        found = await named(cluster, plural, args.names, namespace)
        data = found[0] if len(found) == 1 else found
    else:
        listed = await resources(cluster, plural, namespace)
        found, data = listed.items, listed.as_list(plural)
    wide = args.output == "wide"
    told_of = found
    if plural == NODES and wide:
        asn = await default_asn(cluster)
        told_of = [{**one, "asNumber": asn} for one in found]
    shown = table.rows(plural, told_of, wide=wide, namespace=placed and bool(args.all_namespaces or args.within))
    return Told(
        headline=say("{kind}: {count}", kind=kind_of(plural), count=len(found)),
        text=table.render(shown),
        data=data,
        rows=tuple(map(tuple, shown)),
    )
