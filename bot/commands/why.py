"""`calico-why why A B [PORT/tcp|udp]`: the question this program is for."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot import language as languages
from bot import settings as connection
from bot.asking import picture_file
from bot.errors import COULD_NOT_JUDGE, UserError
from bot.files import write
from bot.language import Language
from bot.words import WATCH_S, parse, watch_seconds, watched

if TYPE_CHECKING:
    from bot.investigate import Investigation

HELP = "why A B [PORT/tcp|udp]: why can A (a pod or node) not reach B (a pod, Service, node or address)?"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [NAMESPACE/]POD|NODE|IP [NAMESPACE/]POD|SERVICE|NODE|IP [PORT/tcp|udp] [options]"
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="who sends (pod or node), whom it does not reach (a pod, Service, node or address), and a port (5432/tcp)",
    )
    parser.add_argument("-o", "--output", choices=("text", "json", "slack"), default="text", help="form of the answer")
    parser.add_argument("--exit-code", action="store_true", help="exit with 1 when a cause was found")
    parser.add_argument("--verbose", "-v", action="store_true", help="list everything that was checked and seen")
    parser.add_argument(
        "--picture", type=picture_file, metavar="FILE.svg|png", help="draw the path, with what is wrong, into this file"
    )
    parser.add_argument(
        "--request-fix",
        action="store_true",
        help="ask for a cause's fix, which a second person approves",
    )
    parser.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=float(WATCH_S),
        default=0.0,
        metavar="SECONDS",
        help="keep looking (60 s) until a cause is found; Ctrl-C answers with what was seen so far",
    )
    parser.add_argument("--deadline", metavar="S", help="seconds a probe may take (4)")
    languages.add_argument(parser)
    connection.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 answered, 3 when the verdict is unknown; with --exit-code 1 for a cause. Raises UserError."""
    words, watching = watched(args.words)
    parse(words)
    if args.watch:
        watching = watch_seconds(args.watch)
    settings, language = connection.from_arguments(args), connection.language(args)
    with connection.about(settings):
        return asyncio.run(_answer(args, words, watching, settings, language))


async def _answer(
    args: argparse.Namespace, words: Sequence[str], watching: int, settings: connection.Settings, language: Language
) -> int:
    from engine.worker import Worker

    worker = Worker()  # gets ready in a process of its own while the clients below are being imported
    try:
        from bot.investigate import Means, investigate
        from bot.sources.kubernetes import Cluster
        from bot.sources.probes import Probes

        async with Cluster(settings) as cluster, Probes(settings, deadline_s=settings.deadline_s) as probes:
            means = Means(cluster, probes, worker, settings.state, settings.state_mib)
            if watching:
                from bot.watch import watch

                with _Watching(language) as seen:
                    answer = await watch(words, watching, means, progress=seen.tell, stop=seen.stop)
            else:
                answer = await investigate(words, means)
    finally:
        worker.close()
    requests = await _requested(answer, settings) if args.request_fix else []
    sys.stdout.write(_form(answer, args.output, verbose=args.verbose, fixes=requests, language=language))
    if args.picture:
        draw(answer, Path(args.picture), language)
    if answer.diagnosis.verdict == "unknown":
        return COULD_NOT_JUDGE
    return 1 if args.exit_code and answer.diagnosis.verdict == "cause" else 0


class _Watching:
    """Shows on a terminal what is going on, in one line that goes again; the first Ctrl-C asks to come to an end."""

    def __init__(self, language: Language) -> None:
        self.stop = asyncio.Event()
        self._language = language
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> _Watching:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupted)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
        self._show("")

    async def tell(self, text: str) -> None:
        self._show(self._language(text))

    def _show(self, text: str) -> None:
        if self._shown:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()

    def _interrupted(self) -> None:
        self.stop.set()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)  # a second one ends it all


def draw(answer: Investigation, file: Path, language: Language) -> None:
    """Its picture. Raises UserError when it cannot be written, or when no path is known that could be drawn."""
    from bot.reply import picture, png

    drawn = picture.render(answer, language)
    if not drawn:
        raise UserError(f"No path between the two is known, so {file} was not drawn. The answer says what is missing.")
    content = png.render(drawn) if file.suffix.lower() == ".png" else drawn.encode()
    if not content:
        raise UserError(f"{file} was not drawn: a PNG of it cannot be made. Give --picture a file that ends in .svg.")
    try:
        write(file, content)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}. Give another file to --picture.") from None


async def _requested(answer: Investigation, settings: connection.Settings) -> list[dict[str, object]]:
    from bot.fix_requests import request_fixes
    from bot.terminal import opened

    async with opened(settings) as store:
        return await request_fixes(answer, store, await store.whoami())


def _form(
    answer: Investigation, form: str, *, verbose: bool, fixes: Sequence[Mapping[str, Any]], language: Language
) -> str:
    if form == "json":
        from bot.reply import json

        return json.render(answer)
    if form == "slack":
        import msgspec

        from bot.reply import blocks

        messages = msgspec.json.encode([blocks.answer(answer, language), *blocks.thread(answer, language=language)])
        return msgspec.json.format(messages, indent=2).decode() + "\n"
    from bot.reply import text

    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return text.render(answer, verbose=verbose, fixes=fixes, colour=colour, language=language)
