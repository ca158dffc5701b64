"""A word and its flags as Slack and terminals both understand them; without it each would read them in its own way."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from bot.errors import UserError

_CHOICE = re.compile(r"(?:argument (?P<argument>.+?): )?invalid choice: '(?P<said>.*?)' \(choose from (?P<known>.*)\)")
_NUMBER = re.compile(r"argument (?P<argument>.+?): invalid (?P<kind>int|float) value: (?P<said>.*)")
_UNKNOWN = "unrecognized arguments: "
_TEXT = re.compile(r"```|\n|[{\[]|apiVersion:")


class HelpAsked(Exception):
    """`--help` was among the words. `text` is the answer."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Parser(argparse.ArgumentParser):
    """argparse that ends no process: what is wrong is a UserError with the nearest form, `--help` is HelpAsked."""

    def __init__(self, *args: Any, **arguments: Any) -> None:
        arguments.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        arguments.setdefault("allow_abbrev", False)
        super().__init__(*args, **arguments)
        self.color = False  # Python 3.14 else writes escape codes for the terminal that a bot was started from

    def print_help(self, file: object = None) -> NoReturn:
        raise HelpAsked(self.format_help().rstrip())

    def error(self, message: str) -> NoReturn:
        usage = " ".join(self.format_usage().removeprefix("usage: ").split())
        _, stands, example = (self.description or "").partition("for example: ")
        raise UserError(f"{self._nearest(message)} Write: {usage}{', ' if stands else ''}{stands}{example}")

    def _nearest(self, message: str) -> str:
        if found := _CHOICE.fullmatch(message):
            known = re.findall(r"[\w-]+", found["known"])
            near = difflib.get_close_matches(found["said"], known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}."
            return f"I do not know {_shown(found['said'])}; {hint}"
        if found := _NUMBER.fullmatch(message):
            return f"{found['argument']}: {found['said']} is no {'whole ' if found['kind'] == 'int' else ''}number."
        if message.startswith(_UNKNOWN):
            said = message.removeprefix(_UNKNOWN).split()[0]
            near = difflib.get_close_matches(said.split("=")[0], self._option_string_actions, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            return f"I do not know {_shown(said)}{hint}"
        return f"{message[:1].upper()}{message[1:]}."

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse, but what is left over is told by the parser of the subcommand, which knows its flags."""
        parsed, left = self.parse_known_args(args, namespace)
        if left:
            innermost = [one for one in leaves(self) if one.prog == getattr(parsed, "parser", "")]
            (innermost or [self])[0].error(_UNKNOWN + " ".join(left))
        return parsed


def picture_file(file: str) -> str:
    """The name of a file that can hold a picture: what it ends with says which form."""
    if not file.lower().endswith((".svg", ".png")):
        raise argparse.ArgumentTypeError(f"{_shown(file)} is neither an SVG nor a PNG: give a name that ends so")
    return file


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser itself, or all of its subcommands' where it has some."""
    below = [
        one
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for one in dict.fromkeys(action.choices.values())
    ]
    if not below:
        yield parser
    for one in below:
        yield from leaves(one)


def with_text(written: str) -> tuple[list[str], str]:
    """The words of a command and the YAML or JSON among them, as it is written in Slack: after a line break, in a code
    block or from a brace on. The text is "" where there is none."""
    begin = _TEXT.search(written)
    if begin is None:
        return written.split(), ""
    head, text, tail = written[: begin.start()], written[begin.start() :], ""
    fence = "```" if text.startswith("```") else ""
    if fence:
        text, _, tail = text.removeprefix(fence).rpartition(fence) if text.count(fence) > 1 else (text[3:], "", "")
    elif text[0] in "{[" and (end := max(text.rfind("}"), text.rfind("]"))) >= 0:
        text, tail = text[: end + 1], text[end + 1 :]
    words = [word for word in f"{head} {tail}".split() if word.strip("`'\"")]
    return words, text.strip("\n")


def understand(word: str, module: Any, words: Sequence[str], written: str = "") -> argparse.Namespace:
    """The words after a word of bot.commands. written: all of it as Slack has it, where lines matter. Raises UserError,
    HelpAsked."""
    parser = Parser(prog=word, description=module.HELP)
    module.add_words(parser)
    name_leaves(parser)
    parsed: argparse.Namespace = parser.parse_args(list(words))
    if check := getattr(module, "check_words", None):  # what a parser cannot know of the words
        check(parsed, written)
    return parsed


def name_leaves(parser: argparse.ArgumentParser) -> None:
    """Have what was parsed say by which subcommand's parser."""
    for one in leaves(parser):
        one.set_defaults(parser=one.prog)


def _shown(word: str) -> str:
    return repr(word if len(word) <= 40 else word[:39] + "…")
