"""Holds the local Slack's judge to what Slack is known to refuse; without it a bad message would pass every test."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.slack.validation import validate_blocks, validate_message, validate_view

Json = dict[str, Any]


def plain(text: str) -> Json:
    return {"type": "plain_text", "text": text}


def mrkdwn(text: str) -> Json:
    return {"type": "mrkdwn", "text": text}


def button(**more: Any) -> Json:
    return {"type": "button", "action_id": "a", "text": plain("Approve"), **more}


def actions(*elements: Json) -> Json:
    return {"type": "actions", "elements": list(elements)}


def cell(text: str = "c") -> Json:
    return {"type": "raw_text", "text": text}


def confirm(text: str) -> Json:
    return {"title": plain("t"), "text": plain(text), "confirm": plain("y"), "deny": plain("n")}


REFUSED: dict[str, tuple[Json, str]] = {
    "section_text_3001": ({"type": "section", "text": mrkdwn("x" * 3001)}, "/blocks/0/text/text"),
    "section_empty_text": ({"type": "section", "text": mrkdwn("")}, "/blocks/0/text/text"),
    "section_11_fields": ({"type": "section", "fields": [mrkdwn("f")] * 11}, "/blocks/0/fields"),
    "section_field_2001": ({"type": "section", "fields": [mrkdwn("f" * 2001)]}, "/blocks/0/fields/0/text"),
    "header_151": ({"type": "header", "text": plain("h" * 151)}, "/blocks/0/text/text"),
    "header_mrkdwn": ({"type": "header", "text": mrkdwn("h")}, "/blocks/0/text"),
    "actions_26": (actions(*(button(action_id=f"a{i}") for i in range(26))), "/blocks/0/elements"),
    "actions_dup_action_id": (actions(button(), button()), "/blocks/0/elements/1/action_id"),
    "button_text_76": (actions(button(text=plain("x" * 76))), "/blocks/0/elements/0/text/text"),
    "button_value_2001": (actions(button(value="x" * 2001)), "/blocks/0/elements/0/value"),
    "button_bad_style": (actions(button(style="warning")), "/blocks/0/elements/0/style"),
    "confirm_text_301": (actions(button(confirm=confirm("x" * 301))), "/blocks/0/elements/0/confirm/text/text"),
    "context_11": ({"type": "context", "elements": [mrkdwn("c")] * 11}, "/blocks/0/elements"),
    "table_101": ({"type": "table", "rows": [[cell()]] * 101}, "/blocks/0/rows"),
    "table_21_columns": ({"type": "table", "rows": [[cell()] * 21]}, "/blocks/0/rows/0"),
    "table_empty_cell": ({"type": "table", "rows": [[cell("")]]}, "/blocks/0/rows/0/0/text"),
    "table_10001_characters": ({"type": "table", "rows": [[cell("c" * 10_001)]]}, "/blocks"),
    "markdown_12001": ({"type": "markdown", "text": "m" * 12_001}, "/blocks/0/text"),
    "unknown_type": ({"type": "sectoin", "text": mrkdwn("hi")}, "/blocks/0"),
    "unknown_key": ({"type": "section", "text": mrkdwn("hi"), "colour": "red"}, "/blocks/0"),
    "block_id_256": ({"type": "divider", "block_id": "b" * 256}, "/blocks/0/block_id"),
    "image_no_alt": ({"type": "image", "image_url": "https://x/y.png"}, "/blocks/0"),
}
TAKEN: dict[str, Json] = {
    "ok_section": {"type": "section", "text": mrkdwn("hi")},
    "data_table": {"type": "data_table", "caption": "c", "rows": [[cell("h")], [cell("h")]]},
    "section_text_3000": {"type": "section", "text": mrkdwn("x" * 3000)},
    "header_150": {"type": "header", "text": plain("h" * 150)},
    "actions_25": actions(*(button(action_id=f"a{i}") for i in range(25))),
    "button_value_2000": actions(button(value="x" * 2000)),
    "confirm_text_300": actions(button(confirm=confirm("x" * 300))),
    "table_100_by_20": {"type": "table", "rows": [[cell()] * 20] * 100},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_slack_refuses(name: str) -> None:
    block, pointer = REFUSED[name]
    problems = validate_blocks([block])
    assert pointer in [problem.pointer for problem in problems], [str(problem) for problem in problems]
    assert {problem.code for problem in problems} == {"invalid_blocks"}


@pytest.mark.parametrize("name", TAKEN)
def test_what_slack_takes(name: str) -> None:
    assert validate_blocks([TAKEN[name]]) == []


def test_a_message_has_at_most_50_blocks_and_12000_characters() -> None:
    divider = {"type": "divider"}
    assert validate_blocks([divider] * 50) == []
    assert [problem.pointer for problem in validate_blocks([divider] * 51)] == ["/blocks"]
    long = {"type": "section", "text": mrkdwn("x" * 3000)}
    assert validate_blocks([long] * 4) == []
    assert [problem.code for problem in validate_blocks([long] * 4 + [TAKEN["ok_section"]])] == ["msg_blocks_too_long"]


def test_identifiers_and_tables_are_counted_over_the_message() -> None:
    twice = {"type": "divider", "block_id": "same"}
    assert [problem.pointer for problem in validate_blocks([twice, twice])] == ["/blocks/1/block_id"]
    table = {"type": "table", "rows": [[cell()]]}
    assert [problem.pointer for problem in validate_blocks([table, table])] == ["/blocks/1"]
    assert validate_blocks([actions(button()), actions(button())]) == []  # an action_id is its block's own


def test_a_message_needs_words_besides_its_blocks() -> None:
    blocks = [TAKEN["ok_section"]]
    assert validate_message({"text": "hi", "blocks": blocks}) == []
    for text in (None, "", "  \n"):
        assert [problem.code for problem in validate_message({"text": text, "blocks": blocks})] == ["no_text"]


def test_modals() -> None:
    asked = {"type": "input", "block_id": "why", "label": plain("Why"), "element": {"type": "plain_text_input"}}
    view = {"type": "modal", "title": plain("Reject"), "submit": plain("Reject"), "blocks": [asked]}
    assert validate_view(view) == []
    without_submit = {key: value for key, value in view.items() if key != "submit"}
    for broken in (without_submit, view | {"title": plain("t" * 25)}, view | {"blocks": [TAKEN["data_table"]]}, None):
        problems = validate_view(broken)
        assert problems and {problem.code for problem in problems} == {"invalid_arguments"}


HOSTILE = st.text(max_size=400) | st.sampled_from(
    ["", " ", "<!channel>", "<@U0ANA>", "`", "\x00", "\u202e", "😀" * 200, "a" * 3001, "</script>", "&lt;", "\ud800"]
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | HOSTILE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(HOSTILE, inner, max_size=4),
    max_leaves=12,
)
BLOCKISH = st.sampled_from(
    [json.dumps(block) for block in (*TAKEN.values(), *(block for block, _ in REFUSED.values()))]
)


@given(HOSTILE)
def test_a_name_is_judged_by_its_length_only(name: str) -> None:
    for block, most in (
        ({"type": "section", "text": mrkdwn(name)}, 3000),
        ({"type": "header", "text": plain(name)}, 150),
        ({"type": "table", "rows": [[cell(name)]]}, 10_000),
    ):
        assert bool(validate_blocks([block])) == (not 1 <= len(name) <= most)


@settings(max_examples=200)
@given(JSON_VALUES)
def test_nothing_makes_the_judge_raise(value: Any) -> None:
    validate_view(value)
    validate_message({"text": value, "blocks": value})
    for block in ([value], [{"type": "section", "text": value}], [{"type": "actions", "elements": [value]}]):
        assert validate_blocks(block)


@given(BLOCKISH, st.text(min_size=1, max_size=8), JSON_VALUES)
def test_a_field_too_many_is_always_refused(text: str, name: str, value: Any) -> None:
    block = json.loads(text)
    if name not in {"type", "text", "fields", "elements", "rows", "block_id", "caption", "alt_text", "image_url"}:
        block[f"x-{name}"] = value
        assert validate_blocks([block])
