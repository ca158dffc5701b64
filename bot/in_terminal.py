"""Answers a command in a terminal: connections, files, the exit status; without it each command would do so itself."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot import language as languages
from bot import settings as connection
from bot.asking import leaves, name_leaves, picture_file
from bot.errors import UserError
from bot.files import write
from bot.told import Answer, Context, Told
from facts import say
from fixes.configuration import Configuration

if TYPE_CHECKING:
    from bot.investigate import Investigation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What a terminal needs beside the words of a command, for each of its subcommands."""
    for leaf in leaves(parser):
        # an error shows the usage: a dozen connections in it would hide the words
        leaf.usage = leaf.format_usage().removeprefix("usage: ").rstrip().replace("%", "%%")
        leaf.add_argument("--to", metavar="FILE", help="write the answer, or the file it comes with, into this file")
        leaf.add_argument(
            "--picture", type=picture_file, metavar="FILE.svg|png", help="write the answer's picture, too"
        )
        leaf.add_argument("--deadline", metavar="S", help="seconds a probe may take (4)")
        languages.add_argument(leaf)
        connection.add_arguments(leaf)
    name_leaves(parser)


def run(module: Any, args: argparse.Namespace) -> int:
    """The exit status of the answer of a word of `bot.told.WORDS` (docs/json.md). Raises UserError."""
    from bot.terminal import name_cluster

    if check := getattr(module, "check_words", None):  # as `asking.understand` does it in Slack
        check(args, "")
    configured = connection.configured(args)
    language = languages.language(configured.language)
    with connection.about(configured.clusters[0]):
        told = asyncio.run(_answered(module.answer, args, configured, language))
    if args.picture:
        keep(Path(args.picture), _picture(told, Path(args.picture)))
    whole = told.form(args.output)
    if args.to:
        keep(Path(args.to), told.files[0].content if told.files else whole.encode())
        whole = "" if not told.files else whole
    for file in told.files if not args.to else ():
        keep(Path(file.name), file.content)
    sys.stdout.write(whole)
    if args.output not in ("json", "yaml", "csv"):
        written = [args.to] if args.to else [file.name for file in told.files]
        said = [] if told.text and not told.concludes and not args.to else [language(told.headline)]
        asked = [say("a second person: {command}", command=f"calico-why approve {one}") for one in told.requests]
        for line in [*said, *map(language, [*told.notes, *asked]), *written]:
            print(line)
    name_cluster(configured.clusters[0])
    return told.status


async def _answered(
    answer: Answer, args: argparse.Namespace, configured: Configuration, language: languages.Language
) -> Told:
    line = Line(language)
    try:
        async with _context(configured, line) as context:
            return await answer(args, context)
    finally:
        line.end()


@contextlib.asynccontextmanager
async def _context(configured: Configuration, line: Line) -> AsyncGenerator[Context]:
    from bot.sources.kubernetes import Cluster
    from bot.sources.probes import Probes
    from bot.terminal import opened

    settings = configured.clusters[0]
    async with (
        Cluster(settings) as cluster,
        Probes(settings, deadline_s=settings.deadline_s) as probes,
        opened(settings) as store,
    ):

        async def investigate(words: Sequence[str]) -> Investigation:
            from bot import watch
            from bot.investigate import Means
            from engine.worker import Worker

            worker = Worker()
            try:
                means = Means(cluster, probes, worker, settings.state, settings.state_mib)
                return await watch.ask(words, means, progress=line.tell)
            finally:
                worker.close()

        yield Context(
            cluster=cluster,
            probes=probes,
            store=store,
            settings=settings,
            configuration=configured,
            whoami=store.whoami,
            investigate=investigate,
            progress=line.tell,
        )


def _picture(told: Told, file: Path) -> bytes:
    from bot.reply import png

    if not told.picture:
        raise UserError(f"There is nothing to draw in this answer, so {file} was not written.")
    content = png.render(told.picture) if file.suffix.lower() == ".png" else told.picture.encode()
    if not content:
        raise UserError(f"{file} was not drawn: a PNG of it cannot be made. Give --picture a file that ends in .svg.")
    return content


def keep(path: Path, content: bytes) -> None:
    """A file for its owner's eyes. Raises UserError."""
    try:
        write(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}). Give the name of another file.") from error


class Line:
    """Progress on the terminal: one line written over and over; elsewhere a line when it says something new."""

    def __init__(self, language: languages.Language) -> None:
        self._language = language
        self._shown = ""

    async def tell(self, text: str) -> None:
        said = self._language(text)
        if said == self._shown:
            return
        if sys.stderr.isatty():
            print(f"\r\x1b[K{said}", end="", file=sys.stderr, flush=True)
        else:
            print(said, file=sys.stderr, flush=True)
        self._shown = said

    def end(self) -> None:
        if self._shown and sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
