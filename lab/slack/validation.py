"""Judges a Slack message or modal as strictly as Slack does; without it a payload Slack refuses would pass every test.

`validate_blocks`, `validate_message` and `validate_view` return a list of `Problem` (empty: Slack would take it).
Limits are data: one table below. Where sources about a limit differ, the smaller one is used. Only the blocks this
product needs are known in depth; a block type outside `MESSAGE_BLOCKS`/`MODAL_BLOCKS` is reported as unsupported, also
where Slack may know it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MESSAGE_BLOCK_LIMIT = 50
MODAL_BLOCK_LIMIT = 100
MESSAGE_CHARACTERS = 12_000  # Slack answers msg_blocks_too_long somewhere above 13,100; nobody published where
TABLE_CHARACTERS = 10_000
DATA_TABLE_CHARACTERS = 20_000
TABLES_A_MESSAGE = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """Why Slack would refuse; `code` is Slack's error word, `pointer` a JSON pointer such as `/blocks/1/text`."""

    message: str
    pointer: str
    code: str = "invalid_blocks"

    def __str__(self) -> str:
        return f"{self.message} [json-pointer:{self.pointer}]"


Check = Callable[[Any, str], Iterator[Problem]]


def string(most: int, least: int = 1) -> Check:
    def check(value: Any, at: str) -> Iterator[Problem]:
        if not isinstance(value, str):
            yield Problem("must be a string", at)
        elif len(value) > most:
            yield Problem(f"must be less than {most + 1} characters", at)
        elif len(value) < least:
            yield Problem(f"must be more than {least - 1} characters", at)

    return check


def url(most: int = 3000) -> Check:
    def check(value: Any, at: str) -> Iterator[Problem]:
        yield from string(most)(value, at)
        if isinstance(value, str) and value and not value.startswith(("http://", "https://", "mailto:")):
            yield Problem("must be a valid URL", at)

    return check


def choice(*allowed: Any) -> Check:
    def check(value: Any, at: str) -> Iterator[Problem]:
        if value not in allowed:
            yield Problem("must be one of: " + ", ".join(map(str, allowed)), at)

    return check


def whole(least: int, most: int) -> Check:
    def check(value: Any, at: str) -> Iterator[Problem]:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            yield Problem(f"must be a whole number from {least} to {most}", at)

    return check


def boolean(value: Any, at: str) -> Iterator[Problem]:
    if not isinstance(value, bool):
        yield Problem("must be a boolean", at)


def number(value: Any, at: str) -> Iterator[Problem]:
    if not isinstance(value, int | float) or isinstance(value, bool):
        yield Problem("must be a number", at)


def items(of: Check, most: int, least: int = 1) -> Check:
    def check(value: Any, at: str) -> Iterator[Problem]:
        if not isinstance(value, list):
            yield Problem("must be an array", at)
            return
        if len(value) > most:
            yield Problem(f"no more than {most} items allowed", at)
        if len(value) < least:
            yield Problem(f"no fewer than {least} items allowed", at)
        for index, item in enumerate(value):
            yield from of(item, f"{at}/{index}")

    return check


@dataclass(frozen=True, slots=True)
class Shape:
    """A JSON object: fields it must have, may have, and nothing else; of those named by `either` one must be there."""

    required: Mapping[str, Check]
    optional: Mapping[str, Check]
    either: tuple[str, ...] = ()

    def __call__(self, value: Any, at: str) -> Iterator[Problem]:
        if not isinstance(value, dict):
            yield Problem("must be an object", at)
            return
        for name in self.required:
            if name not in value:
                yield Problem(f"missing required field: {name}", at)
        if self.either and not any(name in value for name in self.either):
            yield Problem("missing required field: " + " or ".join(self.either), at)
        for name, item in value.items():
            check = self.required.get(name) or self.optional.get(name)
            if name == "type":
                continue
            if check is None:
                yield Problem(f"invalid additional property: {name}", at)
            else:
                yield from check(item, f"{at}/{name}")


def tagged(shapes: Mapping[str, Check]) -> Check:
    """An object whose `type` picks the shape that judges it."""

    def check(value: Any, at: str) -> Iterator[Problem]:
        kind = value.get("type") if isinstance(value, dict) else None
        if isinstance(kind, str) and kind in shapes:
            yield from shapes[kind](value, at)
        else:
            yield Problem(f"unsupported type: {kind}", at)

    return check


def shape(*either: str, needs: Mapping[str, Check] | None = None, **optional: Check) -> Shape:
    return Shape(needs or {}, optional, either)


def plain(most: int) -> Check:
    return tagged({"plain_text": shape(needs={"text": string(most)}, emoji=boolean)})


def words(most: int) -> Check:
    return tagged(
        {
            "plain_text": shape(needs={"text": string(most)}, emoji=boolean),
            "mrkdwn": shape(needs={"text": string(most)}, verbatim=boolean),
        }
    )


IDENTIFIER = string(255)
SLACK_FILE = shape("id", "url", id=string(255), url=url())
CONFIRM = shape(
    needs={"title": plain(100), "text": words(300), "confirm": plain(30), "deny": plain(30)},
    style=choice("primary", "danger"),
)
OPTION = shape(needs={"text": words(75), "value": string(150)}, description=words(75), url=url())
IMAGE_FIELDS: dict[str, Check] = {"image_url": url(), "slack_file": SLACK_FILE}
IMAGE_ELEMENT = shape("image_url", "slack_file", needs={"alt_text": string(2000)}, **IMAGE_FIELDS)
INPUT_FIELDS: dict[str, Check] = {"action_id": IDENTIFIER, "focus_on_load": boolean, "placeholder": plain(150)}

ELEMENTS: dict[str, Check] = {
    "button": shape(
        needs={"text": plain(75)},
        action_id=IDENTIFIER,
        value=string(2000),
        url=url(),
        style=choice("primary", "danger"),
        confirm=CONFIRM,
        accessibility_label=string(75),
    ),
    "static_select": shape(
        needs={"options": items(OPTION, 100)}, initial_option=OPTION, confirm=CONFIRM, **INPUT_FIELDS
    ),
    "overflow": shape(needs={"options": items(OPTION, 5)}, action_id=IDENTIFIER, confirm=CONFIRM),
}
INPUT_ELEMENTS: dict[str, Check] = {
    "plain_text_input": shape(
        needs={},
        multiline=boolean,
        initial_value=string(3000, 0),
        min_length=whole(0, 3000),
        max_length=whole(1, 3000),
        **INPUT_FIELDS,
    ),
    "static_select": ELEMENTS["static_select"],
    "radio_buttons": shape(
        needs={"options": items(OPTION, 10)}, action_id=IDENTIFIER, initial_option=OPTION, confirm=CONFIRM
    ),
    "checkboxes": shape(
        needs={"options": items(OPTION, 10)},
        action_id=IDENTIFIER,
        initial_options=items(OPTION, 10),
        confirm=CONFIRM,
    ),
}

STYLE = shape(bold=boolean, italic=boolean, strike=boolean, code=boolean, underline=boolean)
INLINE = tagged(
    {
        "text": shape(needs={"text": string(MESSAGE_CHARACTERS)}, style=STYLE),
        "link": shape(needs={"url": url()}, text=string(MESSAGE_CHARACTERS), style=STYLE, unsafe=boolean),
        "user": shape(needs={"user_id": IDENTIFIER}, style=STYLE),
        "usergroup": shape(needs={"usergroup_id": IDENTIFIER}, style=STYLE),
        "channel": shape(needs={"channel_id": IDENTIFIER}, style=STYLE),
        "emoji": shape(needs={"name": IDENTIFIER}, unicode=IDENTIFIER, skin_tone=whole(1, 6), style=STYLE),
        "date": shape(
            needs={"timestamp": whole(0, 2**53), "format": IDENTIFIER}, url=url(), fallback=IDENTIFIER, style=STYLE
        ),
        "broadcast": shape(needs={"range": choice("here", "channel", "everyone")}, style=STYLE),
    }
)
INLINES = items(INLINE, 1000)
RICH_SECTION = shape(needs={"elements": INLINES})
RICH_TEXT = shape(
    needs={
        "elements": items(
            tagged(
                {
                    "rich_text_section": RICH_SECTION,
                    "rich_text_preformatted": shape(
                        needs={"elements": INLINES}, border=whole(0, 1), language=IDENTIFIER
                    ),
                    "rich_text_quote": shape(needs={"elements": INLINES}, border=whole(0, 1)),
                    "rich_text_list": shape(
                        needs={
                            "style": choice("bullet", "ordered"),
                            "elements": items(tagged({"rich_text_section": RICH_SECTION}), 1000),
                        },
                        indent=whole(0, 8),
                        offset=whole(0, 10_000),
                        border=whole(0, 1),
                    ),
                }
            ),
            1000,
        )
    },
    block_id=IDENTIFIER,
)
CELL = tagged(
    {
        "raw_text": shape(needs={"text": string(TABLE_CHARACTERS)}),
        "raw_number": shape(needs={"value": number}, text=string(255)),
        "rich_text": RICH_TEXT,
    }
)
COLUMN = shape(align=choice("left", "center", "right"), is_wrapped=boolean)


def _columns(value: Any, at: str) -> Iterator[Problem]:
    # Slack takes null for a column that keeps its defaults
    if value is not None:
        yield from COLUMN(value, at)


SECTION = shape(
    "text",
    "fields",
    text=words(3000),
    fields=items(words(2000), 10),
    accessory=tagged({**ELEMENTS, "image": IMAGE_ELEMENT}),
    block_id=IDENTIFIER,
    expand=boolean,
)
MODAL_BLOCKS: dict[str, Check] = {
    "header": shape(needs={"text": plain(150)}, block_id=IDENTIFIER),
    "section": SECTION,
    "context": shape(
        needs={
            "elements": items(
                tagged(
                    {
                        "plain_text": shape(needs={"text": string(2000)}, emoji=boolean),
                        "mrkdwn": shape(needs={"text": string(2000)}, verbatim=boolean),
                        "image": IMAGE_ELEMENT,
                    }
                ),
                10,
            )
        },
        block_id=IDENTIFIER,
    ),
    "actions": shape(needs={"elements": items(tagged(ELEMENTS), 25)}, block_id=IDENTIFIER),
    "divider": shape(block_id=IDENTIFIER),
    "image": shape(
        "image_url",
        "slack_file",
        needs={"alt_text": string(2000)},
        title=plain(2000),
        block_id=IDENTIFIER,
        **IMAGE_FIELDS,
    ),
    "rich_text": RICH_TEXT,
    "input": shape(
        needs={"label": plain(2000), "element": tagged(INPUT_ELEMENTS)},
        hint=plain(2000),
        optional=boolean,
        dispatch_action=boolean,
        block_id=IDENTIFIER,
    ),
}
MESSAGE_BLOCKS: dict[str, Check] = {
    **MODAL_BLOCKS,
    "table": shape(
        needs={"rows": items(items(CELL, 20), 100)}, column_settings=items(_columns, 20), block_id=IDENTIFIER
    ),
    "data_table": shape(needs={"rows": items(items(CELL, 20), 100, 2), "caption": string(2000)}, block_id=IDENTIFIER),
    "markdown": shape(needs={"text": string(12_000)}, block_id=IDENTIFIER),
}
VIEW = shape(
    needs={"title": plain(24), "blocks": items(tagged(MODAL_BLOCKS), MODAL_BLOCK_LIMIT)},
    submit=plain(24),
    close=plain(24),
    private_metadata=string(3000, 0),
    callback_id=string(255, 0),
    external_id=string(255, 0),
    clear_on_close=boolean,
    notify_on_close=boolean,
    submit_disabled=boolean,
)


def _nodes(value: Any, at: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Every JSON object inside, with its pointer, outermost first."""
    if isinstance(value, dict):
        yield value, at
        for name, item in value.items():
            yield from _nodes(item, f"{at}/{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _nodes(item, f"{at}/{index}")


def characters(blocks: Any) -> int:
    """How many characters of text a person would read in these blocks."""
    texts = (node.get(key) for node, _ in _nodes(blocks, "") for key in ("text", "alt_text"))
    return sum(len(text) for text in texts if isinstance(text, str))


def _together(blocks: list[Any], at: str) -> Iterator[Problem]:
    """What no block can know alone: identifiers used twice, more tables than Slack draws, too much table text."""
    block_ids: set[str] = set()
    for index, block in enumerate(blocks):
        if not isinstance(block, dict):
            continue
        here = f"{at}/{index}"
        block_id = block.get("block_id")
        if isinstance(block_id, str):
            if block_id in block_ids:
                yield Problem(f"`block_id` {block_id} already exists", f"{here}/block_id")
            block_ids.add(block_id)
        action_ids: set[str] = set()
        for node, where in _nodes(block, here):
            action_id = node.get("action_id")
            if isinstance(action_id, str):
                if action_id in action_ids:
                    yield Problem(f"`action_id` {action_id} already exists", f"{where}/action_id")
                action_ids.add(action_id)
    for kind, most in (("table", TABLE_CHARACTERS), ("data_table", DATA_TABLE_CHARACTERS)):
        tables = [(block, i) for i, block in enumerate(blocks) if isinstance(block, dict) and block.get("type") == kind]
        if sum(characters(block.get("rows")) for block, _ in tables) > most:
            yield Problem(f"all {kind} cells together must be less than {most + 1} characters", at)
        for _, index in tables[TABLES_A_MESSAGE:]:
            yield Problem(f"no more than {TABLES_A_MESSAGE} {kind} allowed", f"{at}/{index}")


def validate_blocks(blocks: Any) -> list[Problem]:
    """What Slack would say about the `blocks` of a message; empty when it would take them."""
    found = list(items(tagged(MESSAGE_BLOCKS), MESSAGE_BLOCK_LIMIT, 0)(blocks, "/blocks"))
    if isinstance(blocks, list):
        found += _together(blocks, "/blocks")
    if not found and characters(blocks) > MESSAGE_CHARACTERS:
        found.append(
            Problem(f"must be less than {MESSAGE_CHARACTERS + 1} characters", "/blocks", "msg_blocks_too_long")
        )
    return found


def validate_message(message: Mapping[str, Any]) -> list[Problem]:
    """The blocks of `{"text": ..., "blocks": [...]}` and the fallback text notifications and screen readers need."""
    text, blocks = message.get("text"), message.get("blocks") or []
    found = validate_blocks(blocks)
    if not isinstance(text, str) or not text.strip():
        found.append(Problem("a message needs a fallback text", "/text", "no_text"))
    elif len(text) > 40_000:
        found.append(Problem("must be less than 40001 characters", "/text", "msg_too_long"))
    return found


def validate_view(view: Any) -> list[Problem]:
    """What Slack would say about a modal; pointers begin at `/view`."""
    if not isinstance(view, dict) or view.get("type") != "modal":
        kind = view.get("type") if isinstance(view, dict) else None
        return [Problem(f"unsupported type: {kind}", "/view/type", "invalid_arguments")]
    found = list(VIEW(view, "/view"))
    blocks = view.get("blocks")
    if isinstance(blocks, list):
        found += _together(blocks, "/view/blocks")
        asks = any(isinstance(block, dict) and block.get("type") == "input" for block in blocks)
        if asks and "submit" not in view:
            found.append(Problem("missing required field: submit", "/view"))
    return [Problem(problem.message, problem.pointer, "invalid_arguments") for problem in found]
