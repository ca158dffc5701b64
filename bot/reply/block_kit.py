"""Slack's Block Kit within Slack's limits, whatever the names; without it a pod's name could mention a channel, or cost
a whole message."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from bot.language import ENGLISH, Language
from bot.reply.wording import printable
from facts import say

Block = dict[str, Any]

# Slack's limits; a message of more than about 13,000 characters is refused whole, though no document says so.
SECTION = 3000
CONTEXT = 2000
FALLBACK = 3000
MESSAGE = 11_000
BLOCKS = 48
BUTTON_TEXT = 75
VALUE = 2000

MARKS = {
    "cause": ":x:",
    "healthy": ":white_check_mark:",
    "unknown": ":grey_question:",
    "waits": ":hourglass_flowing_sand:",
}
_SLACK_ID = re.compile(r"[UW][A-Z0-9]{2,30}")
_GROUP_ID = re.compile(r"S[A-Z0-9]{2,30}")


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message. `text` is what notifications and screen readers get."""

    text: str
    blocks: list[Block]
    request: str = ""  # name of the FixRequest the message is the card of


def escape(text: str) -> str:
    """Text from the cluster, unable to mention, link or broadcast."""
    return printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(text: str) -> str:
    """As a code span; a backtick in it would end the span."""
    return f"`{escape(text).replace('`', 'ˋ')}`" if text.strip() else "-"


def who(identity: str, name: str = "") -> str:
    """A person or user group as a mention, by id only; else the escaped name."""
    if _SLACK_ID.fullmatch(identity):
        return f"<@{identity}>"
    if _GROUP_ID.fullmatch(identity):
        return f"<!subteam^{identity}>"
    return escape(name or identity or "somebody")


def of_cluster(text: str, cluster: str) -> str:
    """Markup of ours with the name of the cluster it is about: behind a sentence, above several lines."""
    if not cluster or not text:
        return text
    return f"[{escape(cluster)}]\n{text}" if "\n" in text else f"{text}   [{escape(cluster)}]"


def value(what: str, cluster: str) -> str:
    """What a button means, and in which cluster."""
    return f"{what[:VALUE]}@{cluster}" if cluster else what[:VALUE]


def meant(value: str) -> tuple[str, str]:
    """The two of `value`. Buttons of before there were several clusters have no second: it is "" then."""
    what, _, cluster = value.partition("@")
    return what, cluster


def when(text: str) -> str:
    """A moment in the reader's own time zone; as it was written where it is no time."""
    found = moment(text)
    if found is None:
        return escape(text)
    return f"<!date^{int(found.timestamp())}^{{time_secs}}|{found:%H:%M:%S} UTC>"


def moment(text: str) -> datetime | None:
    """None for what is no time, or has no zone."""
    try:
        found = datetime.fromisoformat(text)
    except (ValueError, TypeError):
        return None
    return found if found.tzinfo else None


def message(text: str, blocks: Sequence[Block], language: Language = ENGLISH, *, request: str = "") -> Message:
    """At most MESSAGE characters in at most BLOCKS blocks: what is too much is cut from the end, and that is said."""
    kept: list[Block] = []
    size = 0
    for block in blocks:
        size += _characters(block)
        if kept and (size > MESSAGE or len(kept) == BLOCKS) and block["type"] != "actions":
            more = say("… more than a message holds; all of it with `calico-why why --verbose`")
            kept.append(context([language(more)]))
            break
        kept.append(block)
    return Message(text=cut(printable(text), FALLBACK) or "-", blocks=kept, request=request)


def _characters(value: object) -> int:
    if isinstance(value, Mapping):
        return sum(len(item) if isinstance(item, str) else _characters(item) for item in value.values())
    if isinstance(value, list):
        return sum(map(_characters, value))
    return 0


def section(text: str) -> Block:
    """Markup."""
    return {"type": "section", "text": _mrkdwn(text, SECTION)}


def lines(lines: Iterable[str], language: Language = ENGLISH) -> Block:
    """One section; lines that do not fit are left out and counted, so that no markup is cut in the middle."""
    return section(_fitted(list(lines), SECTION, language))


def context(texts: Sequence[str]) -> Block:
    """Markup in small letters, side by side."""
    return {"type": "context", "elements": [_mrkdwn(text, CONTEXT) for text in texts]}


def preformatted(text: str) -> Block:
    """Text of fixed width, without markup."""
    kept = text if len(text) <= SECTION else text[: SECTION - 1] + "…"  # the spaces before a column's head, too
    element = {"type": "text", "text": kept}
    return {"type": "rich_text", "elements": [{"type": "rich_text_preformatted", "elements": [element]}]}


def table(rows: Sequence[Sequence[str]]) -> Block:
    """Cells without markup, the head first."""
    return {
        "type": "table",
        "column_settings": [{"is_wrapped": True}] * len(rows[0]),
        "rows": [[{"type": "raw_text", "text": cell} for cell in row] for row in rows],
    }


def _mrkdwn(text: str, most: int) -> Block:
    # verbatim: what looks like a link or a channel in a name from the cluster is left alone
    return {"type": "mrkdwn", "text": _cut_markup(text, most) or "-", "verbatim": True}


def plain(text: str, most: int) -> Block:
    """At most so many characters, without markup."""
    return {"type": "plain_text", "text": cut(printable(text), most) or "-", "emoji": False}


def _fitted(lines: list[str], most: int, language: Language) -> str:
    text = "\n".join(lines)
    if len(text) <= most:
        return text
    kept: list[str] = []
    for index, line in enumerate(lines):
        short = _cut_markup(line, most // 2)
        if sum(len(one) + 1 for one in kept) + len(short) > most - 40:
            kept.append(language(say("… and {count} more", count=len(lines) - index)))
            break
        kept.append(short)
    return "\n".join(kept)


def cut(text: str, most: int) -> str:
    """At most so many characters, of which a last "…" says that there were more."""
    text = text.strip()
    return text if len(text) <= most else text[: most - 1] + "…"


def _cut_markup(text: str, most: int) -> str:
    """Cut so that no entity (&amp;), mention or code span is left open."""
    text = text.strip()
    if len(text) <= most:
        return text
    short = text[: most - 3]
    for opening, closing in (("<", ">"), ("&", ";")):
        start = short.rfind(opening)
        if start > short.rfind(closing):
            short = short[:start]
    return short + ("`" if short.count("`") % 2 else "") + "…"
