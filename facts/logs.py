"""How every program here writes its log, as lines for people or as JSON; without it each would leak in its own way."""

from __future__ import annotations

import argparse
import contextlib
import contextvars
import datetime
import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, TextIO

from facts.redaction import hide, redact

FORMS = ("text", "json")
TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"

_about: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar("about", default={})  # noqa: B039

log = logging.getLogger(__name__)


@contextlib.contextmanager
def about(**ids: str) -> Iterator[None]:
    """What is logged within, in tasks and threads begun there too, carries these: `question`, `request`."""
    token = _about.set({**_about.get(), **ids})
    try:
        yield
    finally:
        _about.reset(token)


def add_argument(parser: argparse.ArgumentParser, *, of_file: bool = False) -> None:
    """of_file: what is not said is for fixes.configuration to tell, and None here."""
    parser.add_argument(
        "--log",
        type=_form,
        default=None if of_file else os.environ.get("CALICO_WHY_LOG") or "text",
        metavar="|".join(FORMS),
        help="how the log is written: lines of text, or a JSON object a line ($CALICO_WHY_LOG, text)",
    )


def start(form: str, *, secrets: tuple[str, ...] = ()) -> None:
    """All that Python would write to standard error goes into the log from now on, cleaned: warnings, errors of threads
    and of finalizers, and what ends the program. secrets: see `redaction.hide`."""
    hide(*secrets)
    handler = _Handler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text(TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(True)
    sys.excepthook = _ended
    sys.unraisablehook = lambda it: _broke(it.err_msg or "an error that nobody could be told", it.exc_value)
    threading.excepthook = lambda it: _broke(f"the thread {it.thread.name if it.thread else '?'} broke", it.exc_value)


def end(sentence: str) -> None:
    """Why the program ends, cleaned: a line of its log where that is JSON, else the sentence and nothing beside it."""
    if any(isinstance(one.formatter, _Json) for one in logging.getLogger().handlers):
        log.critical("%s", sentence)
    else:
        print(redact(sentence), file=sys.stderr)


class _Text(logging.Formatter):
    """Tokens reach exceptions and library logs in ways nobody can foresee, so whole lines are cleaned."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class _Json(logging.Formatter):
    """time: UTC. Values are cleaned one by one: as JSON a secret may look different."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, str] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        line |= {name: redact(value) for name, value in _about.get().items()}
        if record.exc_info:
            line["error"] = redact(self.formatException(record.exc_info))
        if record.stack_info:
            line["stack"] = redact(record.stack_info)
        return json.dumps(line)


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:
        """logging itself would print the message and its arguments as they are."""
        with contextlib.suppress(Exception):
            why = redact(traceback.format_exc().strip().rpartition("\n")[2])
            text = f"a message of {record.name} ({record.pathname}:{record.lineno}) cannot be written: {why}"
            self.stream.write(self.format(logging.makeLogRecord({"levelname": "ERROR", "name": __name__, "msg": text})))
            self.stream.write(self.terminator)


def _ended(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("ended by what nobody handled", exc_info=(kind, error, trace))


def _broke(what: str, error: BaseException | None) -> None:
    log.error("%s", what, exc_info=error)


def _form(text: str) -> Any:
    if text not in FORMS:
        raise argparse.ArgumentTypeError(f"{text!r} is neither {' nor '.join(FORMS)}")
    return text
