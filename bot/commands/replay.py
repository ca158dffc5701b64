"""A saved investigation judged again, offline: evidence outlives the incident, and a newer version can look at it."""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
import zlib
from pathlib import Path

import msgspec

from bot import language as languages
from bot import settings as connection
from bot.asking import picture_file
from bot.bundle import INVESTIGATION
from bot.commands.why import draw
from bot.errors import COULD_NOT_JUDGE, UserError
from bot.investigate import Investigation
from bot.reply import json as as_json
from bot.reply import text as as_text
from engine.worker import Worker
from facts import DERIVED, from_builtins

HELP = "judge a saved investigation again, offline"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="a file saved by `why` or by the bot: inv-….json, or a bundle of `keep`")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="form of the answer")
    parser.add_argument("--verbose", "-v", action="store_true", help="list everything that was checked and seen")
    parser.add_argument(
        "--picture", type=picture_file, metavar="FILE.svg|png", help="draw the path, with what is wrong, into this file"
    )
    languages.add_argument(parser)


def run(args: argparse.Namespace) -> int:
    language = connection.language(args)
    investigation = load(Path(args.file))
    worker = Worker()
    try:
        judged = msgspec.structs.replace(investigation, diagnosis=worker.diagnose(investigation.diagnosis.facts))
    finally:
        worker.close()
    if args.output == "json":
        sys.stdout.write(as_json.render(judged))
    else:
        sys.stdout.write(as_text.render(judged, verbose=args.verbose, language=language))
    if args.picture:
        draw(judged, Path(args.picture), language)
    return COULD_NOT_JUDGE if judged.diagnosis.verdict == "unknown" else 0


def load(path: Path) -> Investigation:
    """The investigation in a file, its diagnosis emptied but for what was observed. Raises UserError."""
    try:
        saved = json.loads(_content(path))
        observed = [from_builtins(one) for one in saved["diagnosis"]["facts"]]
        saved["diagnosis"] = {"verdict": "unknown"}
        investigation = msgspec.convert(saved, Investigation)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is a broken bundle ({error}), so nothing can be judged.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Give a file that `why` or the bot saved.") from None
    except (ValueError, KeyError, TypeError, msgspec.ValidationError) as error:
        raise UserError(
            f"{path} is no saved investigation ({error}). Give a file that `why` or the bot saved."
        ) from None
    facts = tuple(fact for fact in observed if not isinstance(fact, DERIVED))
    diagnosis = msgspec.structs.replace(investigation.diagnosis, facts=facts)
    return msgspec.structs.replace(investigation, diagnosis=diagnosis)


def _content(path: Path) -> bytes:
    """Of an investigation, or of the one in a bundle that `keep` made. Raises OSError, TarError, UserError."""
    if not tarfile.is_tarfile(path):
        return path.read_bytes()
    with tarfile.open(path) as bundle:
        for one in bundle:
            if one.isfile() and one.name.rpartition("/")[2] == INVESTIGATION and (file := bundle.extractfile(one)):
                return file.read()
    raise UserError(f"{path} holds no answer that could be judged again: only bundles of `calico-why keep` do.")
