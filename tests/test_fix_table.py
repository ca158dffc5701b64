"""The page that says which failure modes have a fix says it of each, and what the rules say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine import rulebase
from engine.rule import CauseRule
from fixes.kind import kinds

PAGE = Path(__file__).parents[1] / "docs" / "fixes.md"
MODES = {rule.name: rule for rule in rulebase.load().rules if isinstance(rule, CauseRule)}


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under this heading, without its first two lines."""
    table = PAGE.read_text().split(f"## {heading}\n")[1].strip().split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def proposed() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    kind: tuple[str, ...] = ()
    for first, modes, *_ in rows("Proposed"):
        kind = tuple(first.split(", ")) if first else kind
        found |= dict.fromkeys(re.findall(r"`(\w+)`", modes), kind)
    return found


def test_every_kind_stands_in_one_of_the_tables() -> None:
    proposed_kinds = {kind for every in proposed().values() for kind in every}
    by_name = {first for first, *_ in rows("Asked for by name")}
    assert proposed_kinds | by_name == set(kinds()) and not proposed_kinds & by_name


def test_every_failure_mode_stands_in_one_of_the_tables() -> None:
    without = [name for _, modes in rows("Not proposed") for name in re.findall(r"`(\w+)`", modes)]
    assert sorted([*proposed(), *without]) == sorted(MODES)


@pytest.mark.parametrize("mode", sorted(MODES))
def test_its_kind_is_the_one_of_its_rule(mode: str) -> None:
    rule = MODES[mode]
    wanted = (rule.fix, *rule.other_fixes) if rule.fix else ()
    assert proposed().get(mode, ()) == wanted
    assert set(wanted) <= set(kinds())
