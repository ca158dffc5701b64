"""What a command found, however it is told; without it Slack, text, JSON and CSV would each say something else."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from bot.resources import yaml
from bot.settings import Settings
from facts import Text
from fixes.configuration import Configuration
from fixes.request import Person
from fixes.store import FixStore

if TYPE_CHECKING:
    from bot.delivery import SlackSettings
    from bot.investigate import Investigation, Progress
    from bot.sources.kubernetes import Cluster
    from bot.sources.probes import Probes

# What is answered as `Told`: each is a module of bot.commands with `add_words` and `answer`.
WORDS = ("ipam", "node", "keep", "get", "create", "apply", "replace", "patch", "delete", "preflight")


class File(msgspec.Struct, frozen=True, kw_only=True):
    """Comes with an answer: in Slack it hangs in the thread, in a terminal it is written into a file of this name."""

    name: str
    content: bytes
    title: str = ""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """An answer in all its forms."""

    headline: Text | str  # one sentence; the first line in Slack, in a terminal where there is no text
    concludes: bool = False  # the headline says more than the text does: a terminal prints it below that
    text: str = ""  # lines of fixed width, all of it; no newline at the end
    notes: tuple[Text | str, ...] = ()  # sentences below it: what could not be seen, what it means, what to do
    data: Any = None  # what `-o json` and `-o yaml` print
    rows: tuple[tuple[str, ...], ...] = ()  # what `-o csv` prints, the head first
    files: tuple[File, ...] = ()
    picture: str = ""  # SVG, and what it shows, for who cannot see it
    shows: str = ""
    requests: tuple[str, ...] = ()  # names of fix requests that were made, each of which gets a card
    mark: str = "healthy"  # "healthy" | "cause" | "unknown", as a verdict's; "waits" where somebody has to approve
    status: int = 0  # exit status in a terminal

    def form(self, output: str) -> str:
        """As `-o` says, with a newline at its end. "" where this answer has no such form."""
        if output == "json":
            # a Text is a str, which msgspec takes no subclass of
            return msgspec.json.format(msgspec.json.encode(self.data, enc_hook=str), indent=2).decode() + "\n"
        if output == "csv":
            lines = io.StringIO()
            csv.writer(lines, lineterminator="\n").writerows(self.rows)
            return lines.getvalue()
        if output == "yaml":
            return yaml.write(self.data)
        return f"{self.text}\n" if self.text else ""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a command may use, and on whose behalf it does."""

    cluster: Cluster
    probes: Probes
    store: FixStore
    settings: Settings
    whoami: Callable[[], Awaitable[Person]]  # who asks
    investigate: Callable[[Sequence[str]], Awaitable[Investigation]]  # `why` with these words
    progress: Progress  # shown while it lasts
    written: str = ""  # all that was written after the word, line by line, as Slack has it; "" in a terminal
    configuration: Configuration | None = None  # all that was told, of other clusters as well
    slack: SlackSettings | None = None  # of the bot that is asked; in a terminal the environment may have some
    channel: str = ""  # of Slack, where it is asked


Answer = Callable[[argparse.Namespace, Context], Awaitable[Told]]


def output(parser: argparse.ArgumentParser, *forms: str) -> None:
    """`-o`, whose first form is the usual one."""
    parser.add_argument("-o", "--output", choices=forms, default=forms[0], help=f"form of the answer ({forms[0]})")
