"""The answer and the cards of its fixes as Slack messages: pure data within Slack's limits, whatever the names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from bot.errors import UserError
from bot.investigate import Investigation
from bot.language import ENGLISH, Language
from bot.reply import commands, evidence, wording
from bot.reply.fix_words import fix_words
from bot.reply.wording import Request, printable
from bot.told import Told
from facts import Cause, Text, say
from fixes.request import CAPTURE, NOTHING_NOW

Block = dict[str, Any]

# Slack's limits; a message of more than about 13,000 characters is refused whole, though no document says so.
SECTION = 3000
CONTEXT = 2000
FALLBACK = 3000
MESSAGE = 11_000
BLOCKS = 48
CELL = 160
TABLE = 7_000
TABLE_ROWS = 15  # what is wrong stands first; the rest is for --verbose
PREVIEWED = 12  # lines of what would be written
BUTTONS = 20
BUTTON_TEXT = 75
VALUE = 2000

APPROVE = "fix_approve"
REJECT = "fix_reject"
REASON = "fix_reason"  # the form that asks why, its block and its field
CHOOSE = "why_choose"  # action_id "why_choose:0", value the words of a new question

MARKS = {
    "cause": ":x:",
    "healthy": ":white_check_mark:",
    "unknown": ":grey_question:",
    "waits": ":hourglass_flowing_sand:",
}
PHASES = {
    "Pending": ":hourglass_flowing_sand: waits for approval",
    "Rejected": ":no_entry_sign: rejected, nothing was changed",
    "Expired": ":alarm_clock: expired, nothing was changed",
    "Stale": ":alarm_clock: stale, nothing was changed: what it rests on is no longer so",
    "Cancelled": ":no_entry_sign: cancelled, nothing was changed",
    "Approved": ":hourglass_flowing_sand: approved, about to be done",
    "Running": ":gear: being done",
    "Verified": ":white_check_mark: done and verified",
    "NotFixed": ":x: done, but not fixed",
    "Failed": ":x: failed",
    "Unknown": ":grey_question: interrupted: whether it was done is not known",
}
_EVENTS = {
    "Pending": "asked",
    "Rejected": "rejected",
    "Expired": "expired",
    "Stale": "stale",
    "Cancelled": "cancelled",
    "Approved": "approved",
    "Running": "begun on {node}",
    "Verified": "verified",
    "NotFixed": "not fixed",
    "Failed": "failed",
    "Unknown": "interrupted",
}
# What is said otherwise of a request for a capture.
_PHASES_OF_CAPTURES = {
    **PHASES,
    "Rejected": ":no_entry_sign: rejected, nothing was captured",
    "Expired": ":alarm_clock: expired, nothing was captured",
    "Stale": ":alarm_clock: stale, nothing was captured: a pod is not the one it was",
    "Cancelled": ":no_entry_sign: cancelled, nothing was captured",
    "Approved": ":hourglass_flowing_sand: approved, about to be captured",
    "Running": ":gear: being captured",
    "Verified": ":white_check_mark: captured",
    "Unknown": ":grey_question: interrupted: whether there is a file is not known",
}
_EVENTS_OF_CAPTURES = {**_EVENTS, "Running": "begun", "Verified": "captured"}
_DECIDING = {
    "Approved": ":hourglass_flowing_sand: approving: {person} clicked, and that is being decided",
    "Rejected": ":hourglass_flowing_sand: rejecting: {person} gave a reason, and that is being decided",
}
_SLACK_ID = re.compile(r"[UW][A-Z0-9]{2,30}")
_GROUP_ID = re.compile(r"S[A-Z0-9]{2,30}")


class Deciding(NamedTuple):
    """What is being decided right now, and who did that."""

    to: str  # the phase it is to be in
    user: str  # Slack id


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
    moment = _moment(text)
    if moment is None:
        return escape(text)
    return f"<!date^{int(moment.timestamp())}^{{time_secs}}|{moment:%H:%M:%S} UTC>"


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except (ValueError, TypeError):
        return None
    return found if found.tzinfo else None


# -- the question and its answer ------------------------------------------------------------------------------------


def progress(asked: str, step: str, *, asked_by: str = "", cluster: str = "", language: Language = ENGLISH) -> Message:
    """The one message that is updated while looking."""
    line = _asked(asked, asked_by, cluster, language)
    title = language(say("Looking: {asked}", asked=asked))
    return _message(title, [_section(line), _context([f":mag: {escape(language(step))}"])], language)


def answer(investigation: Investigation, language: Language = ENGLISH) -> Message:
    """The same message when the answer is there: the question's line, the verdict, the proof."""
    diagnosis = investigation.diagnosis
    headline = wording.headline(investigation, language)
    lines = [f"{MARKS.get(diagnosis.verdict, ':grey_question:')} *{escape(headline)}*"]
    if diagnosis.causes:
        lines += [escape(one) for one in wording.told(diagnosis.causes[0], language)]
    if diagnosis.summary:
        lines.append(escape(wording.summary(diagnosis, language)))
    asked = _asked(investigation.asked, investigation.asked_by, investigation.cluster, language)
    blocks = [_section(asked), _lines(lines, language)]
    blocks += [_lines(_cause(one, ":x:", language), language) for one in diagnosis.causes[1:]]
    blocks += [_lines(_cause(one, ":warning:", language), language) for one in diagnosis.warnings]
    return _message(f"{investigation.asked}: {headline}", blocks, language)


def thread(
    investigation: Investigation, cards: Sequence[Message] = (), *, note: str = "", language: Language = ENGLISH
) -> list[Message]:
    """What goes below the answer, in order: the path, the evidence, the cards of the fixes, what was (not) seen.

    note: what else is to be said of the answer.
    """
    found = [_path(investigation, language), _evidence(investigation, language), *cards]
    found.append(_seen(investigation, note, language))
    return [message for message in found if message is not None]


def trouble(error: UserError, words: Sequence[str], cluster: str = "") -> Message:
    """A sentence about a question that could not be asked, with buttons where something else could have been meant."""
    blocks = [_section(f":warning: {escape(error.sentence)}")]
    buttons = [
        {
            "type": "button",
            "action_id": f"{CHOOSE}:{index}",
            "text": _plain(choice, BUTTON_TEXT),
            "value": value(" ".join(choice if word == error.word else word for word in words), cluster),
        }
        for index, choice in enumerate(error.choices[:BUTTONS])
    ]
    if buttons:
        blocks.append({"type": "actions", "elements": buttons})
    return _message(error.sentence, blocks)


def capture(
    asked: str,
    step: str = "",
    *,
    headline: str = "",
    table: Sequence[str] = (),
    notes: Sequence[str] = (),
    asked_by: str = "",
    cluster: str = "",
    language: Language = ENGLISH,
) -> Message:
    """A capture while it lasts (step), and the same message when it is done. table: lines of fixed width."""
    blocks = [_section(_asked(asked, asked_by, cluster, language, word="capture"))]
    if headline:
        blocks.append(_section(f"*{escape(headline)}*"))
    if table:
        blocks.append(_preformatted("\n".join(map(printable, table))))
    if notes:
        blocks.append(_lines([escape(note) for note in notes], language))
    if step:
        blocks.append(_context([f":mag: {escape(language(step))}"]))
    return _message(f"capture {asked}: {headline or language(step)}", blocks, language)


def policy(
    asked: str,
    headline: str,
    mark: str,
    paragraphs: Sequence[Sequence[str]],
    *,
    note: str,
    asked_by: str = "",
    cluster: str = "",
    language: Language = ENGLISH,
) -> Message:
    """What the policies say. paragraphs and note (what kind of an answer this is) are markup already."""
    blocks = [
        _section(_asked(asked, asked_by, cluster, language, word="policy")),
        _section(f"{mark} *{escape(headline)}*"),
        _context([note]),
    ]
    blocks += [_lines(lines, language) for lines in paragraphs]
    return _message(f"policy {asked}: {headline}", blocks, language)


def told(
    asked: str,
    found: Told | None = None,
    step: str = "",
    *,
    output: str = "text",
    asked_by: str = "",
    cluster: str = "",
    language: Language = ENGLISH,
) -> Message:
    """What a command of the runbook found (`bot.told`), and the same message while it looks (step)."""
    blocks = [_section(_asked(asked, asked_by, cluster, language, word=""))]
    headline = language(found.headline if found else step)
    if found:
        blocks.append(_section(f"{MARKS[found.mark]} *{escape(headline)}*"))
        whole = found.form(output)
        if whole and fits(whole):
            blocks.append(_preformatted("\n".join(map(printable, whole.rstrip("\n").split("\n")))))
        elif whole:
            shown = _beginning(list(map(printable, whole.split("\n"))))
            blocks += [_preformatted(shown), _context([escape(language(say("… all of it is the file in the thread")))])]
        if found.notes:
            blocks.append(_lines([escape(language(note)) for note in found.notes], language))
    if step:
        blocks.append(_context([f":mag: {escape(headline)}"]))
    return _message(f"{asked}: {headline}", blocks, language)


def fits(text: str) -> bool:
    """Whether a message can show all of this text of fixed width."""
    return len(text) <= SECTION


def _beginning(lines: Sequence[str]) -> str:
    """The first lines, as many as a message shows when a file has all of them."""
    kept: list[str] = []
    for line in lines[:TABLE_ROWS]:
        if sum(len(one) + 1 for one in kept) + len(line) > SECTION:
            break
        kept.append(line)
    return "\n".join(kept) or lines[0][: SECTION - 1] + "…"


def _asked(asked: str, asked_by: str, cluster: str, language: Language, word: str = "why") -> str:
    question = f"{word} {code(asked)}".strip()
    said = say("{person} asked: {question}", person=who(asked_by), question=question) if asked_by else question
    return of_cluster(language(said), cluster)


def _cause(cause: Cause, mark: str, language: Language) -> list[str]:
    return [f"{mark} *{escape(wording.titled(cause, language))}*", *map(escape, wording.told(cause, language))]


def _path(investigation: Investigation, language: Language) -> Message:
    diagnosis = investigation.diagnosis
    sides = [wording.placed(investigation, side, language) for side in wording.sides(investigation)]
    lines = [" → ".join(code(side) for side in sides)]
    if about := wording.setting(diagnosis, language):
        lines.append(escape(about))
    blocks = [_lines(lines, language)]
    named = wording.legs(diagnosis, language)
    width = max([8, *(wording.width(name) for name, _ in named)])
    drawn = "\n".join(printable(f"{wording.padded(name, width)} {wording.path(leg, language)}") for name, leg in named)
    if drawn:
        blocks.append(_preformatted(drawn))
    blocks += [_context([escape(wording.lost(leg, language))]) for _, leg in named if leg.lost]
    found = (*diagnosis.causes, *diagnosis.warnings)
    blocks += _commands(say("See it"), [one for cause in found for one in commands.to_see(cause, diagnosis)], language)
    remedies: dict[str, list[commands.Command]] = {}
    for cause in diagnosis.causes:
        typed = remedies.setdefault(wording.remedy(cause, language), [])
        typed += commands.by_hand(cause, diagnosis.facts)
    for remedy, typed in remedies.items():
        blocks.append(_section(f"*{language(say('Do now'))}:* {escape(remedy)}"))
        blocks += _commands(say("By hand"), typed, language)
    if diagnosis.verdict == "unknown" and (step := wording.next_step(investigation, language)):
        blocks.append(_section(f"*{language(say('Next'))}:* {escape(step)}"))
    told = "; ".join(wording.ends(name, leg, language) for name, leg in named)
    title = say("The path: {legs}", legs=told) if told else say("The path is not known")
    return _message(language(title), blocks, language)


def _commands(head: Text, found: Sequence[commands.Command], language: Language) -> list[Block]:
    """What a reader can type, a line each, which begins with where."""
    lines = [printable(str(one)) for one in dict.fromkeys(found)][:TABLE_ROWS]
    return [_section(f"*{language(head)}:*"), _preformatted("\n".join(lines))] if lines else []


def _evidence(investigation: Investigation, language: Language) -> Message | None:
    rows = evidence.rows(investigation.diagnosis)
    if not rows:
        return None
    table = [[language(one) for one in (say("Node"), say("What"), say("Expected"), say("Seen"))]]
    size = 0
    for row in rows[:TABLE_ROWS]:
        mark = "✗ " if row.wrong else ""
        said = (row.node, language(row.what), language(row.expected), mark + language(row.seen))
        cells = [_cut(printable(one), CELL) or "-" for one in said]
        size += sum(map(len, cells))
        if size > TABLE:
            break
        table.append(cells)
    left = len(rows) - (len(table) - 1)
    wrong = sum(row.wrong for row in rows)
    title = language(say("Evidence: {count} things seen, {wrong} not as expected", count=len(rows), wrong=wrong))
    blocks = [_section(f"*{title}*"), _table(table)]
    if left:
        more = say("{count} more, all of them with: `calico-why why --verbose`", count=left)
        blocks.append(_context([language(more)]))
    return _message(title, blocks, language)


def _seen(investigation: Investigation, note: str, language: Language) -> Message:
    diagnosis = investigation.diagnosis
    blind = wording.blind(diagnosis, language)
    lines = [language(say("*Could not see:*") if blind else say("*Could not see:* nothing"))]
    lines += [f"• {escape(one)}" for one in blind]
    blocks = [_lines(lines, language)]
    count = language(say("{count} things checked and well", count=len(diagnosis.checked)))
    seconds = language(say("{seconds} s", seconds=f"{investigation.elapsed_ms / 1000:.2f}"))
    few = [f"{count}; {seconds}; {escape(investigation.id)}"]
    if investigation.saved:
        command = code(f"calico-why replay --verbose {investigation.saved}")
        few.append(language(say("all of it: {command}", command=command)))
    if investigation.not_saved:
        few.append(language(say("not saved: {why}", why=escape(investigation.not_saved))))
    if note:
        few.append(escape(language(note)))
    blocks.append(_context(["   ".join(few)]))
    unseen = say("{checked}; could not see: {count}", checked=count, count=len(blind) or say("nothing"))
    return _message(language(unseen), blocks, language)


# -- the card of a fix ----------------------------------------------------------------------------------------------


def fix_card(
    request: Request,
    now: datetime,
    *,
    approvers: Sequence[str] = (),
    four_eyes: bool = True,
    deciding: Deciding | None = None,
    answer: str = "",
    cluster: str = "",
    language: Language = ENGLISH,
) -> Message:
    """The card of a FixRequest (its custom resource) as it stands at `now`. Buttons only while it can be decided.

    approvers: Slack ids of users and groups who may decide. four_eyes: not the one who asked. deciding: a click that is
    not decided yet. answer: URL of the message that has the answer, which its evidence is below.
    """
    spec: Mapping[str, Any] = request.get("spec") or {}
    status: Mapping[str, Any] = request.get("status") or {}
    name, phase = wording.request_name(request), str(status.get("phase") or "Pending")
    deadline = _moment(str(spec.get("expiresAt") or ""))
    open_until = phase == "Pending" and deadline is not None and now < deadline
    shown = "Expired" if phase == "Pending" and not open_until else phase
    by: Mapping[str, Any] = spec.get("requestedBy") or {}
    requester = who(str(by.get("id") or ""), str(by.get("name") or ""))

    words = fix_words(spec)
    title = language(words.title) or name
    capture = spec.get("kind") == CAPTURE
    known = say(_PHASES_OF_CAPTURES[shown] if capture else PHASES[shown]) if shown in PHASES else escape(shown)
    state = language(known)
    if open_until and deciding:
        state = language(say(_DECIDING[deciding.to], person=who(deciding.user)))
    waits: Mapping[str, Any] = status.get("waits") or {} if shown == "Approved" else {}
    if waits.get("until"):
        second = say(":hourglass_flowing_sand: approved; the second look is at {time}", time=when(str(waits["until"])))
        state = language(second)
    elif waits:
        state = language(say(":double_vertical_bar: approved, and held back; it is looked at again until it expires"))
    radius = escape(language(words.blast_radius)) or say("not known")
    undo = escape(language(words.undo)) or say("not known")
    about = [language(say("*Blast radius:* {text}", text=radius)), language(say("*Undo:* {text}", text=undo))]
    if spec.get("investigation"):
        about.insert(0, language(_why(spec, answer, language)))
    asked_at = when(str(spec.get("requestedAt") or ""))
    asked = say("{request} asked by {person} {time}", request=code(name), person=requester, time=asked_at)
    few = [language(asked).rstrip()]
    if open_until:
        allowed = ", ".join(who(one) for one in approvers) or say("nobody: no approvers are configured")
        decide = (
            say("May approve: {people} (not {person})", people=allowed, person=requester)
            if four_eyes and approvers
            else say("May approve: {people}", people=allowed)
        )
        few += [language(decide), language(say("Until {time}", time=when(str(spec.get("expiresAt")))))]
    blocks = [
        _lines(
            [of_cluster(f"*{escape(title)}*", cluster), state, *([escape(str(waits.get("text")))] if waits else [])],
            language,
        ),
        _lines(about, language),
        *_preview(status, name, say("*Captures:*") if capture else say("*Writes:*"), language),
        _context(few),
    ]
    if story := _story(status, str(spec.get("node") or ""), language, capture=capture):
        blocks.append(_lines(story, language))
    if open_until and not deciding:
        question = say("Approve this capture?") if capture else say("Approve this change?")
        blocks.append(_buttons(name, title, language(words.blast_radius), question, cluster, language))
    return _message(f"{title}: {state.split(': ', 1)[-1]}", blocks, language, request=name)


def _preview(status: Mapping[str, Any], name: str, head: str, language: Language) -> list[Block]:
    """What would be written or captured, as far as it fits on a card."""
    lines = [_nothing(str(line), language) for line in status.get("preview") or ()]
    if not lines:
        return []
    text = "\n".join(map(printable, lines[:PREVIEWED]))
    blocks = [_section(language(head)), _preformatted(text.strip() or "-")]
    if (rest := len(lines) - PREVIEWED) > 0:
        more = say("{count} more lines: {command}", count=rest, command=code(f"fixes show {name}"))
        blocks.append(_context([language(more)]))
    return blocks


def _why(spec: Mapping[str, Any], answer: str, language: Language) -> str:
    """What the request rests on, and where that is told."""
    where = say("above in this thread")
    return say(
        "*Why:* {question} found it, by {count} things seen: {where}",
        question=code(f"why {spec.get('question') or ''}"),
        count=len(spec.get("evidence") or ()),
        where=f"<{answer}|{language(say('the answer and its evidence'))}>" if answer else where,
    )


def _nothing(line: str, language: Language) -> str:
    """What a fixer says where it would write nothing, around its reason; any other line is a command or an object."""
    if not line.startswith(NOTHING_NOW):
        return line
    return language(say("Nothing, as it is now: {why}", why=line.removeprefix(NOTHING_NOW)))


def _story(status: Mapping[str, Any], node: str, language: Language, *, capture: bool) -> list[str]:
    """What has happened to a request, a line each: who, when, and what was said."""
    lines = []
    for event in status.get("history") or ():
        phase = str(event.get("phase") or "")
        if phase == "Pending":
            continue
        by: Mapping[str, Any] = event.get("by") or {}
        done = escape(phase)
        if phase in _EVENTS:
            where = escape(node) or say("its node")
            done = say(_EVENTS_OF_CAPTURES[phase] if capture else _EVENTS[phase], node=where)
        if by:
            done = say("{done} by {person}", done=done, person=who(str(by.get("id") or ""), str(by.get("name") or "")))
        words = [language(done), when(str(event.get("at") or ""))]
        said = f": {escape(str(event['message']))}" if event.get("message") else ""
        lines.append("• " + " ".join(filter(None, words)) + said)
    if second := status.get("secondLook"):
        mark = MARKS.get(str(second.get("verdict")), "")
        looked = language(say("second look"))
        lines.append(f"{mark} {looked} {when(str(second.get('at') or ''))}: {escape(str(second.get('text') or ''))}")
    return lines


def _buttons(name: str, title: str, blast_radius: str, question: str, cluster: str, language: Language) -> Block:
    confirm = {
        "title": _plain(language(question), 100),
        "text": _plain(f"{f'[{cluster}] ' if cluster else ''}{title}. {blast_radius}", 300),
        "confirm": _plain(language(say("Approve")), 30),
        "deny": _plain(language(say("Not now")), 30),
    }
    return {
        "type": "actions",
        "elements": [
            {
                "type": "button",
                "action_id": APPROVE,
                "text": _plain(language(say("Approve")), BUTTON_TEXT),
                "style": "primary",
                "value": value(name, cluster),
                "confirm": confirm,
            },
            {
                "type": "button",
                "action_id": REJECT,
                "text": _plain(language(say("Reject")), BUTTON_TEXT),
                "value": value(name, cluster),
            },
        ],
    }


def reason_form(name: str, about: str, longest: int, language: Language = ENGLISH) -> Mapping[str, Any]:
    """The modal that asks why a request is rejected. about: comes back with the answer, and nobody sees it."""
    asked = {
        "type": "input",
        "block_id": REASON,
        "label": _plain(language(say("Why not? Everybody can read it.")), 150),
        "element": {"type": "plain_text_input", "action_id": REASON, "max_length": longest},
    }
    return {
        "type": "modal",
        "callback_id": REASON,
        "private_metadata": about,
        "title": _plain(f"{language(say('Reject'))} {name}", 24),
        "submit": _plain(language(say("Reject")), 24),
        "close": _plain(language(say("Not now")), 24),
        "blocks": [asked],
    }


# -- Slack's shapes -------------------------------------------------------------------------------------------------


def _message(text: str, blocks: Sequence[Block], language: Language = ENGLISH, *, request: str = "") -> Message:
    """At most MESSAGE characters in at most BLOCKS blocks: what is too much is cut from the end, and that is said."""
    kept: list[Block] = []
    size = 0
    for block in blocks:
        size += _characters(block)
        if kept and (size > MESSAGE or len(kept) == BLOCKS) and block["type"] != "actions":
            more = say("… more than a message holds; all of it with `calico-why why --verbose`")
            kept.append(_context([language(more)]))
            break
        kept.append(block)
    return Message(text=_cut(printable(text), FALLBACK) or "-", blocks=kept, request=request)


def _characters(value: object) -> int:
    if isinstance(value, Mapping):
        return sum(len(item) if isinstance(item, str) else _characters(item) for item in value.values())
    if isinstance(value, list):
        return sum(map(_characters, value))
    return 0


def _section(text: str) -> Block:
    return {"type": "section", "text": _mrkdwn(text, SECTION)}


def _lines(lines: Iterable[str], language: Language = ENGLISH) -> Block:
    """One section; lines that do not fit are left out and counted, so that no markup is cut in the middle."""
    return _section(_fitted(list(lines), SECTION, language))


def _context(texts: Sequence[str]) -> Block:
    return {"type": "context", "elements": [_mrkdwn(text, CONTEXT) for text in texts]}


def _preformatted(text: str) -> Block:
    kept = text if len(text) <= SECTION else text[: SECTION - 1] + "…"  # the spaces before a column's head, too
    element = {"type": "text", "text": kept}
    return {"type": "rich_text", "elements": [{"type": "rich_text_preformatted", "elements": [element]}]}


def _table(rows: Sequence[Sequence[str]]) -> Block:
    return {
        "type": "table",
        "column_settings": [{"is_wrapped": True}] * len(rows[0]),
        "rows": [[{"type": "raw_text", "text": cell} for cell in row] for row in rows],
    }


def _mrkdwn(text: str, most: int) -> Block:
    # verbatim: what looks like a link or a channel in a name from the cluster is left alone
    return {"type": "mrkdwn", "text": _cut_markup(text, most) or "-", "verbatim": True}


def _plain(text: str, most: int) -> Block:
    return {"type": "plain_text", "text": _cut(printable(text), most) or "-", "emoji": False}


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


def _cut(text: str, most: int) -> str:
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
