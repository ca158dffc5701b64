"""The card of a fix, and the form that asks why not: pure data within Slack's limits; without it nobody could decide
where the incident is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from bot.language import ENGLISH, Language
from bot.reply import block_kit as kit
from bot.reply import wording
from bot.reply.block_kit import BUTTON_TEXT, MARKS, Message, code, escape, of_cluster, value, when, who
from bot.reply.fix_words import fix_words
from bot.reply.wording import Request, printable
from facts import say
from fixes.request import CAPTURE, NOTHING_NOW

PREVIEWED = 12  # lines of what would be written
APPROVE = "fix_approve"
REJECT = "fix_reject"
REASON = "fix_reason"  # the form that asks why, its block and its field
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


class Deciding(NamedTuple):
    """What is being decided right now, and who did that."""

    to: str  # the phase it is to be in
    user: str  # Slack id


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
    deadline = kit.moment(str(spec.get("expiresAt") or ""))
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
        kit.lines(
            [of_cluster(f"*{escape(title)}*", cluster), state, *([escape(str(waits.get("text")))] if waits else [])],
            language,
        ),
        kit.lines(about, language),
        *_preview(status, name, say("*Captures:*") if capture else say("*Writes:*"), language),
        kit.context(few),
    ]
    if story := _story(status, str(spec.get("node") or ""), language, capture=capture):
        blocks.append(kit.lines(story, language))
    if open_until and not deciding:
        question = say("Approve this capture?") if capture else say("Approve this change?")
        blocks.append(_buttons(name, title, language(words.blast_radius), question, cluster, language))
    return kit.message(f"{title}: {state.split(': ', 1)[-1]}", blocks, language, request=name)


def _preview(status: Mapping[str, Any], name: str, head: str, language: Language) -> list[kit.Block]:
    """What would be written or captured, as far as it fits on a card."""
    lines = [_nothing(str(line), language) for line in status.get("preview") or ()]
    if not lines:
        return []
    text = "\n".join(map(printable, lines[:PREVIEWED]))
    blocks = [kit.section(language(head)), kit.preformatted(text.strip() or "-")]
    if (rest := len(lines) - PREVIEWED) > 0:
        more = say("{count} more lines: {command}", count=rest, command=code(f"fixes show {name}"))
        blocks.append(kit.context([language(more)]))
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


def _buttons(name: str, title: str, blast_radius: str, question: str, cluster: str, language: Language) -> kit.Block:
    confirm = {
        "title": kit.plain(language(question), 100),
        "text": kit.plain(f"{f'[{cluster}] ' if cluster else ''}{title}. {blast_radius}", 300),
        "confirm": kit.plain(language(say("Approve")), 30),
        "deny": kit.plain(language(say("Not now")), 30),
    }
    return {
        "type": "actions",
        "elements": [
            {
                "type": "button",
                "action_id": APPROVE,
                "text": kit.plain(language(say("Approve")), BUTTON_TEXT),
                "style": "primary",
                "value": value(name, cluster),
                "confirm": confirm,
            },
            {
                "type": "button",
                "action_id": REJECT,
                "text": kit.plain(language(say("Reject")), BUTTON_TEXT),
                "value": value(name, cluster),
            },
        ],
    }


def reason_form(name: str, about: str, longest: int, language: Language = ENGLISH) -> Mapping[str, Any]:
    """The modal that asks why a request is rejected. about: comes back with the answer, and nobody sees it."""
    asked = {
        "type": "input",
        "block_id": REASON,
        "label": kit.plain(language(say("Why not? Everybody can read it.")), 150),
        "element": {"type": "plain_text_input", "action_id": REASON, "max_length": longest},
    }
    return {
        "type": "modal",
        "callback_id": REASON,
        "private_metadata": about,
        "title": kit.plain(f"{language(say('Reject'))} {name}", 24),
        "submit": kit.plain(language(say("Reject")), 24),
        "close": kit.plain(language(say("Not now")), 24),
        "blocks": [asked],
    }
