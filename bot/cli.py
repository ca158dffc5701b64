"""`calico-why WORD ...`: finds the word's command and says every error as a sentence; nothing can be called without."""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module, util
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from bot.asking import HelpAsked, Parser
from bot.errors import COULD_NOT_JUDGE, WRONG_USAGE, UserError

GROUP = "calico_why.commands"
ABOUT = "Answers why a pod cannot reach another pod on a Calico cluster, with evidence and a fix people approve."
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; its exit status. argv: the words after the program's name, sys.argv's by default."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words[:1]
    words = words[1:] if debug else words
    try:
        status = _run(words)
        sys.stdout.flush()
        return status
    except UserError as error:
        _end(error.sentence)
        return error.status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on; Python would complain at exit
        return 0
    except Exception as error:
        if debug:
            _end(_traceback(error))
        _end(_unexpected(error, debug))
        return COULD_NOT_JUDGE


def _run(words: list[str]) -> int:
    commands = {one.name: one.value for one in entry_points(group=GROUP)}
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help(commands))
        return 0 if words else WRONG_USAGE
    if words[0] not in commands:
        near = difflib.get_close_matches(words[0], commands, n=1)
        hint = f"did you mean `calico-why {near[0]}`?" if near else f"there is {', '.join(sorted(commands))}."
        raise UserError(f"{words[0]!r} is not a word of calico-why; {hint}")
    if util.find_spec(commands[words[0]].partition(".")[0]) is None:
        raise UserError(
            f"{words[0]} is not in this installation of calico-why (an image has no lab); a checkout has it."
        )
    module: Any = import_module(commands[words[0]])
    parser = Parser(prog=f"calico-why {words[0]}", description=module.HELP)
    try:
        if hasattr(module, "answer"):  # Slack answers the same words
            return _answered(module, parser, words[1:])
        module.add_arguments(parser)
        return int(module.run(parser.parse_args(words[1:])))
    except HelpAsked as asked:
        print(asked.text)
        return 0
    except SystemExit as end:  # of a command that ended itself
        return end.code if isinstance(end.code, int) else WRONG_USAGE


def _answered(module: Any, parser: Parser, words: list[str]) -> int:
    from bot import in_terminal  # which few of the words need

    module.add_words(parser)
    in_terminal.add_arguments(parser)
    return in_terminal.run(module, parser.parse_args(words))


def _help(commands: dict[str, str]) -> str:
    wide = max(map(len, commands), default=0)
    rows = [f"  {word:<{wide}}  {_one_line(module)}" for word, module in sorted(commands.items())]
    return "\n".join(
        [
            "usage: calico-why [--debug] WORD ...",
            "",
            ABOUT,
            "",
            *rows,
            "",
            "calico-why WORD --help tells more. Exit status: 0 answered, 2 wrong usage, 3 could not judge.",
        ]
    )


def _one_line(module: str) -> str:
    """HELP of a command, read from its source: importing ten commands to list them would take seconds."""
    import ast

    try:
        spec = util.find_spec(module)
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8")) if spec and spec.origin else None
    except (ImportError, OSError):
        tree = None
    if tree is None:
        return "(not installed)"
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
            names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
            if "HELP" in names:
                return str(statement.value.value)
    return ""


def _unexpected(error: Exception, printed: bool) -> str:
    """One sentence for an error nobody foresaw, and where its traceback is."""
    import secrets
    import tempfile

    reference = f"err-{secrets.token_hex(4)}"
    said = f"Something unforeseen happened ({type(error).__name__}, reference {reference}), so there is no answer."
    if printed:
        return f"{said} The traceback stands above."
    directory = Path(os.environ.get("CALICO_WHY_STATE") or tempfile.gettempdir())
    path = directory / f"calico-why-{reference}.txt"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(_traceback(error))
    except OSError:
        return f"{said} Run it again as `calico-why --debug ...` to see where."
    return f"{said} The traceback is in {path}; `calico-why --debug ...` prints it."


def _traceback(error: Exception) -> str:
    from facts.redaction import redact  # which few of the words need

    return redact("".join(traceback.format_exception(error)))


def _end(sentence: str) -> None:
    from facts import logs

    logs.end(sentence)


if __name__ == "__main__":
    sys.exit(main())
