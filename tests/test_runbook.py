"""The runbook's page is the rules in words: none missing, none out of order, and the committed page is today's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bot import cli
from bot.commands import runbook
from engine import rulebase
from engine.order import depths
from engine.rule import HEALS_ENTRY, HEALS_NEVER, NOT_FELIX, CauseRule, Text, cause, some, the
from facts import Leg, Link

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = {"en": DOCS / "runbook.md", "zh": DOCS / "runbook.zh.md"}
MODES = [rule for rule in rulebase.load().rules if isinstance(rule, CauseRule)]


def made(name: str, **more: Any) -> CauseRule:
    """A failure mode of that name."""

    def body(leg: Leg, device: Link) -> Text | None:
        return None

    body.__name__ = name
    settings: dict[str, Any] = {
        "title": f"Title of {name}",
        "severity": "breaks",
        "remedy": "Do | this.",
        "at": the.leg.source_node,
    }
    return cause(
        leg=some(Leg, encapsulation="vxlan"),
        device=some(Link, node=the.leg.source_node, found=True),
        **{**settings, **more},
    )(body)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_committed_page_is_what_the_command_writes(language: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runbook", "--lang", language]) == 0
    written = capsys.readouterr().out
    page = PAGES[language]
    if not page.exists() or page.read_text() != written:
        command = f"calico-why runbook --lang {language} > docs/{page.name}"
        pytest.fail(f"docs/{page.name} is not today's rules; write it: {command}", pytrace=False)


def test_every_failure_mode_stands_once_with_all_that_a_person_needs() -> None:
    page = runbook.page(rulebase.load().rules)
    parts = {part.split("\n", 1)[0]: part for part in re.split(r"^### ", page, flags=re.MULTILINE)}
    for mode in MODES:
        part = parts[mode.name]
        assert page.count(f"\n### {mode.name}\n") == 1
        assert page.count(f"](#{mode.name})\n") == 1, "once in the order of work"
        assert mode.title in part and mode.doc in part and " ".join(mode.remedy.split()) in part
        assert runbook.felix(mode) in part
        for _, pattern in mode.patterns:
            assert f"\n### {pattern.kind.__name__}\n" in page, "every noun is explained"


def test_roots_come_before_their_echoes() -> None:
    place = {mode.name: index for index, mode in enumerate(runbook.in_order(MODES))}
    for mode in MODES:
        for root in (*mode.after, *mode.after_peer):
            assert root not in place or place[root] < place[mode.name], f"{root}, {mode.name}"


def test_no_two_failure_modes_silence_each_other() -> None:
    """In a circle of echoes each would be silent because of the next, and a broken flow without a cause."""
    for pairs in (
        {(root, mode.name) for mode in MODES for root in mode.after},
        {(root, mode.name) for mode in MODES for root in mode.after_peer},
    ):
        waiting = {name for pair in pairs for name in pair}
        while free := {name for name in waiting if not any(echo == name and root in waiting for root, echo in pairs)}:
            waiting -= free
        assert waiting == set()


def test_the_diagram_leaves_out_what_follows_from_other_arrows() -> None:
    modes = [made("a"), made("b", after=["a"]), made("c", after=["a", "b", "planned"], after_peer=["a"])]
    assert runbook.edges(modes) == ({("a", "b"), ("b", "c")}, {("a", "c")})
    assert runbook.diagram(modes).splitlines()[2:5] == ["    a --> b", "    b --> c", "    a -.-> c"]
    assert depths(modes) == {"a": 0, "b": 1, "c": 2}


def test_a_circle_of_echoes_still_has_an_order() -> None:
    found = depths([made("a", after=["b"]), made("b", after=["a"])])
    assert set(found) == {"a", "b"}


@pytest.mark.parametrize(
    ("heals", "words"),
    [(NOT_FELIX, "nothing to do"), (HEALS_NEVER, "never repairs"), (HEALS_ENTRY, "within 95 s")],
)
def test_it_says_what_felix_does_and_when(heals: int, words: str) -> None:
    page = runbook.page([made("a", heals_within_s=heals)])
    assert words in page


def test_conditions_are_told_in_words() -> None:
    page = runbook.page([made("a", fix="replace_neighbor", stage="source tunnel", both_ways=True)])
    assert (
        "| Judged by | `leg`: a [Leg](#leg) with encapsulation = vxlan<br>"
        "`device`: a [Link](#link) with node = `leg.source_node`, found = true |" in page
    )
    assert "| Lost at | source tunnel, and on the way back too |" in page
    assert "| What to do | Do / this. |" in page, "a bar would end the table's cell"
    assert "| Fix to approve | `replace_neighbor` |" in page
