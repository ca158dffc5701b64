"""`python -m tests.translate zh [FILE]`: today's sentences into the catalogues of a language, and what it lacks.

FILE holds new translations: a line of English, a line of the other language, and so on (a line break in one is \\n).
What nobody says any more goes; what is known stays, also where a sentence moved to another file.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from bot.language import CATALOGUES, key, read
from engine import rulebase
from engine.rule import CauseRule
from tests import sentences

LONGEST_KEY = 900  # YAML wants a longer one behind a question mark


def main(name: str, new: Path | None) -> int:
    """1 while something is not translated."""
    directory, frame = CATALOGUES / name, CATALOGUES / f"{name}.yaml"
    directory.mkdir(exist_ok=True)
    known: dict[str, str] = {}
    for path in [*directory.glob("*.yaml"), frame]:
        known |= read(path) if path.exists() else {}
    if new:
        lines = [line for line in new.read_text().splitlines() if line.strip()]
        known |= {
            key(english): other.replace("\\n", "\n") for english, other in zip(lines[::2], lines[1::2], strict=True)
        }
    wanted = {frame: sorted(sentences.of_frame())}
    for mode in rulebase.load().rules:
        if isinstance(mode, CauseRule):
            first = list(dict.fromkeys(map(key, (mode.title, mode.doc, mode.remedy))))
            wanted[directory / f"{mode.name}.yaml"] = [*first, *sorted(sentences.of_mode(mode) - set(first))]
    for path in set(directory.glob("*.yaml")) - set(wanted):
        path.unlink()
    for path, english in wanted.items():
        if entries := [_entry(one, known[one]) for one in english if one in known]:
            path.write_text("".join(entries))
    missing = [one for one in dict.fromkeys(itertools.chain(*wanted.values())) if one not in known]
    print("\n".join(missing) if missing else f"{name} is complete")
    return 1 if missing else 0


def _entry(english: str, other: str) -> str:
    name = f"{_quoted(english)}:" if len(english) < LONGEST_KEY else f"? {_quoted(english)}\n:"
    return f"{name}\n  {_block(other.splitlines()) if chr(10) in other else _quoted(other)}\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _block(lines: Iterable[str]) -> str:
    return "|\n" + "\n".join(f"    {line}" if line else "" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None))
