"""`calico-why capture A B [PORT/tcp|udp]`: the packets themselves, for who wants to see with their own eyes."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path

from bot import language as languages
from bot import settings as connection
from bot.capture import PACKETS, SECONDS, Captured, Wanted, headline, notes, table, wanted
from bot.errors import COULD_NOT_JUDGE, UserError
from bot.files import write
from bot.in_terminal import Line
from bot.language import Language

HELP = "capture A B [PORT/tcp|udp]: packets between two pods at every stage of both nodes, as one pcapng file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [NAMESPACE/]POD [NAMESPACE/]POD [PORT/tcp|udp] [options]"
    parser.add_argument("words", nargs="*", metavar="WORD", help="both pods, and the port of the second (5432/tcp)")
    parser.add_argument("--seconds", default=f"{SECONDS:g}", metavar="N", help="how long (%(default)s)")
    parser.add_argument(
        "--packets", default=str(PACKETS), metavar="N", help="end after so many, in all places together (%(default)s)"
    )
    parser.add_argument("--payload", action="store_true", help="whole packets; without it their headers only")
    parser.add_argument("-o", "--output", metavar="FILE.pcapng", help="the file (default: capture-A-B-TIME.pcapng)")
    languages.add_argument(parser)
    connection.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 captured, 3 when some place could not be looked at or no packet passed. Raises UserError."""
    asked = wanted(args.words, seconds=args.seconds, packets=args.packets, payload=args.payload)
    _writable(Path(args.output or "capture.pcapng"))
    settings, language = connection.from_arguments(args), connection.language(args)
    with connection.about(settings):
        return asyncio.run(_capture(args, asked, settings, language))


async def _capture(args: argparse.Namespace, asked: Wanted, settings: connection.Settings, language: Language) -> int:
    from bot.capture import capture
    from bot.sources.kubernetes import Cluster
    from bot.sources.probes import Probes
    from bot.terminal import name_cluster

    stop = asyncio.Event()
    line = Line(language)
    loop = asyncio.get_running_loop()

    def end() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)  # who presses Ctrl-C again does not want the file either

    loop.add_signal_handler(signal.SIGINT, end)
    try:
        async with Cluster(settings) as cluster, Probes(settings) as probes:
            captured = await capture(asked, cluster=cluster, probes=probes, progress=line.tell, stop=stop)
    finally:
        line.end()
        loop.remove_signal_handler(signal.SIGINT)
    path = Path(args.output or captured.name)
    _write(path, captured)
    print("\n".join([headline(captured, language), "", *table(captured, language), "", *notes(captured, language)]))
    print(path)
    name_cluster(settings)
    return 0 if captured.complete and captured.packets else COULD_NOT_JUDGE


def _writable(path: Path) -> None:
    """Raises UserError: better now than when the packets have gone by."""
    if path.is_dir() or not path.absolute().parent.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise UserError(f"{path} cannot be written. Give -o the name of a file in a directory you may write to.")


def _write(path: Path, captured: Captured) -> None:
    """For the owner's eyes. Raises UserError."""
    try:
        write(path, captured.file)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}), so the capture is lost. Name another file with -o and "
            "capture again."
        ) from error
