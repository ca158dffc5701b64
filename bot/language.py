"""Answers in the reader's language; without it every sentence would have to be written once for each language.

A language is files and nothing else: bot/lang/zh.yaml for the frame of an answer, bot/lang/zh/<failure mode>.yaml for
what that mode says, each a mapping from the English to the other. They are found by name; what is not there is said in
English.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping
from pathlib import Path

from bot.errors import UserError
from facts import Message, Text

CATALOGUES = Path(__file__).parent / "lang"
VARIABLE = "CALICO_WHY_LANG"


class Language:
    """Says a sentence in one language. `words`: English sentences and templates -> theirs."""

    def __init__(self, name: str, words: Mapping[str, str]) -> None:
        self.name = name
        self._words = words

    def __call__(self, sentence: str, message: Message | None = None) -> str:
        """The sentence in this language, in English where it is not known.

        message: what the sentence was before it was put into English, where it is not a Text that knows it itself.
        """
        if isinstance(sentence, Text):
            message = sentence.message
        if message is None or str(message) != sentence:  # somebody has put other words in its place
            return self._words.get(key(sentence), sentence)
        return self._said(message) if self._words else str(message)

    def _said(self, message: Message) -> str:
        template = self._words.get(key(message.template), message.template)
        return template.format_map(
            {name: value if isinstance(value, str) else self._said(value) for name, value in message.values}
        )


ENGLISH = Language("en", {})


def key(sentence: str) -> str:
    """What a catalogue knows a sentence by: its words, however its lines are broken."""
    return " ".join(sentence.split())


def names() -> list[str]:
    """Every language there is."""
    return sorted([ENGLISH.name, *(path.stem for path in CATALOGUES.glob("*.yaml"))])


@functools.cache
def language(name: str) -> Language:
    """The language of that name. Raises UserError for one there is not."""
    if name in ("", ENGLISH.name):
        return ENGLISH
    if name not in names():
        raise UserError(f"{name!r} is not a language of this version; there is {' and '.join(names())}.")
    words: dict[str, str] = {}
    for path in [*sorted((CATALOGUES / name).glob("*.yaml")), CATALOGUES / f"{name}.yaml"]:
        words.update(read(path))
    return Language(name, words)


def read(path: Path) -> dict[str, str]:
    """One catalogue: English -> the other language."""
    import msgspec

    return msgspec.yaml.decode(path.read_bytes(), type=dict[str, str])


def add_argument(parser: argparse.ArgumentParser) -> None:
    """The flag of `bot.settings.language`."""
    parser.add_argument(
        "--lang", metavar="NAME", help=f"language of the answer: {', '.join(names())} (${VARIABLE}, en)"
    )
