"""`calico-why certs`: bot's and probes' certificates where no cluster makes them: by hand, in the lab, in a demo."""

from __future__ import annotations

import argparse
import datetime
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from certificates import making
from certificates.files import mode_of
from node_probe.errors import CannotStart

HELP = "make the certificates bot and probes need to trust each other, where no cluster makes them"
DAYS = 365
NAMES = ("ca.crt", "ca.key", "bot.crt", "bot.key")  # of the directory; of each node's there are FILES
FILES = ("ca.crt", "probe.crt", "probe.key")

_NODE = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nodes",
        action="append",
        default=[],
        metavar="NODE[,NODE]",
        help="whose probes get one, by their names in the Kubernetes API; may be repeated. Where the authority is "
        "there already they are added to it",
    )
    parser.add_argument(
        "--directory",
        default=os.environ.get("CALICO_WHY_CERTS") or "certs",
        metavar="DIR",
        help="where to write those of authority and bot, and below it a directory per node "
        "(default: CALICO_WHY_CERTS, else certs)",
    )
    parser.add_argument(
        "--days", type=int, default=DAYS, metavar="N", help="how long they are valid (default %(default)s)"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace what is there, the authority too; running ones take up the new"
    )


def run(args: argparse.Namespace) -> int:
    """0; what is in the way is said in a sentence: 2 or 3."""
    directory = Path(args.directory)
    nodes = [node for words in args.nodes for node in words.split(",") if node]
    try:
        make(directory, nodes, days=args.days, force=args.force)
    except CannotStart as error:
        print(error.sentence, file=sys.stderr)
        return error.status
    print(
        f"{directory} holds what the bot needs for {args.days} days (ca.crt, bot.crt, bot.key), and a directory for "
        f"the probe of each of {', '.join(nodes)}. Keep ca.key away from all of them: whoever has it can be the bot."
    )
    return 0


def make(directory: Path, nodes: Sequence[str], *, days: int = DAYS, force: bool = False) -> None:
    """Writes the authority and the bot's client certificate, where they are not there, and to DIRECTORY/NODE all that
    the probe of each node needs; keys with mode 0600.

    Raises CannotStart when a file exists that would have to be another (unless `force`), or none can be written.
    """
    if not 0 < days <= 36500:
        raise CannotStart(f"{days} days make no certificate; give a number from 1 to 36500.", status=2)
    if not nodes:
        raise CannotStart(
            "Each probe has a certificate of its own: name their nodes with --nodes, such as --nodes node-a,node-b.",
            status=2,
        )
    if strange := [node for node in nodes if not _NODE.fullmatch(node)]:
        raise CannotStart(f"{', '.join(strange)} is no name that a node has in the Kubernetes API.", status=2)
    there = [name for name in NAMES if (directory / name).exists()]
    kept = not force and len(there) == len(NAMES)
    taken = [f"{node}/{name}" for node in nodes for name in FILES if (directory / node / name).exists()]
    if (in_the_way := [*([] if kept else there), *taken]) and not force:
        raise CannotStart(
            f"{directory} holds {', '.join(in_the_way)} already, and bots and probes may be using them: "
            "nothing was written. Give another --directory, or --force to replace them.",
            status=2,
        )
    life = datetime.timedelta(days=days)
    try:
        files = {}
        if kept:
            authority = making.Pair(*((directory / name).read_bytes() for name in ("ca.crt", "ca.key")))
        else:
            authority = making.authority(life)
            bot = making.bot(authority, life)
            files = dict(zip(NAMES, (*authority, *bot), strict=True))
        for node in nodes:
            own = (authority.public, *making.probe(authority, node, life))
            files |= dict(zip((f"{node}/{name}" for name in FILES), own, strict=True))
        for name, content in files.items():
            _write(directory / name, content)
    except ValueError as error:
        raise CannotStart(f"{directory} holds no authority that could sign more ({error}).") from error
    except OSError as error:
        raise CannotStart(f"The certificates cannot be written to {directory}: {error.strerror}.") from error


def _write(path: Path, content: bytes) -> None:
    """A new file in its place: nobody reads half of one, and a key is never readable by others, not even at first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode_of(path.name))
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    fresh.replace(path)
