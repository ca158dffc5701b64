"""Every word that Slack and terminals share: its help has an example that is understood, and its JSON is documented."""

from __future__ import annotations

import argparse
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from bot import asking
from bot.errors import UserError
from bot.told import WORDS

JSON = Path(__file__).parents[1] / "docs/json.md"


def parsers(word: str) -> tuple[Any, list[argparse.ArgumentParser]]:
    """The word's module, and the parsers of the word and of its parts."""
    module: Any = import_module(f"bot.commands.{word}")
    parser = asking.Parser(prog=word, description=module.HELP)
    module.add_words(parser)
    return module, list(dict.fromkeys([parser, *asking.leaves(parser)]))


@pytest.mark.parametrize("word", WORDS)
def test_its_help_and_that_of_each_part_has_an_example_that_is_understood(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("policy.yaml", "pool.yaml", "felix.yaml"):
        Path(name).write_text("{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a}}")
    module, found = parsers(word)
    for one in found:
        example = (one.description or "").partition("for example: ")[2]
        first, *words = shlex.split(example)
        assert first == word
        asking.understand(word, module, words)
        with pytest.raises(asking.HelpAsked) as asked:
            asking.understand(word, module, [*one.prog.split()[1:], "--help"])
        assert example in asked.value.text
        with pytest.raises(UserError, match=f"for example: {re.escape(example)}$"):
            asking.understand(word, module, [*words, "--no-such-flag"] if one in asking.leaves(one) else [])


@pytest.mark.parametrize("word", WORDS)
def test_each_part_has_a_form_for_programs_that_is_documented(word: str) -> None:
    headings = re.findall("^# `calico-why .*", JSON.read_text(), re.MULTILINE)
    for one in asking.leaves(parsers(word)[1][0]):
        assert "json" in (one._option_string_actions["-o"].choices or ())
        name = one.prog.split()[-1]
        documented = [re.findall(r"[a-z]+", heading) for heading in headings if re.search(rf"\b{word}\b", heading)]
        assert any(name in words for words in documented), f"docs/json.md does not tell of {one.prog} -o json"
