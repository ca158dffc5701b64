"""What is answered, as Slack messages: pure data within Slack's limits; without it they would be bare text."""

from __future__ import annotations

from collections.abc import Sequence

from bot.errors import UserError
from bot.investigate import Investigation
from bot.language import ENGLISH, Language
from bot.reply import block_kit as kit
from bot.reply import commands, evidence, wording
from bot.reply.block_kit import BUTTON_TEXT, MARKS, SECTION, Message, code, escape, of_cluster, value, who
from bot.reply.wording import printable
from bot.told import Told
from facts import Cause, Text, say

CELL = 160
TABLE = 7_000
TABLE_ROWS = 15  # what is wrong stands first; the rest is for --verbose
BUTTONS = 20
CHOOSE = "why_choose"  # action_id "why_choose:0", value the words of a new question


def progress(asked: str, step: str, *, asked_by: str = "", cluster: str = "", language: Language = ENGLISH) -> Message:
    """The one message that is updated while looking."""
    line = _asked(asked, asked_by, cluster, language)
    title = language(say("Looking: {asked}", asked=asked))
    return kit.message(title, [kit.section(line), kit.context([f":mag: {escape(language(step))}"])], language)


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
    blocks = [kit.section(asked), kit.lines(lines, language)]
    blocks += [kit.lines(_cause(one, ":x:", language), language) for one in diagnosis.causes[1:]]
    blocks += [kit.lines(_cause(one, ":warning:", language), language) for one in diagnosis.warnings]
    return kit.message(f"{investigation.asked}: {headline}", blocks, language)


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
    blocks = [kit.section(f":warning: {escape(error.sentence)}")]
    buttons = [
        {
            "type": "button",
            "action_id": f"{CHOOSE}:{index}",
            "text": kit.plain(choice, BUTTON_TEXT),
            "value": value(" ".join(choice if word == error.word else word for word in words), cluster),
        }
        for index, choice in enumerate(error.choices[:BUTTONS])
    ]
    if buttons:
        blocks.append({"type": "actions", "elements": buttons})
    return kit.message(error.sentence, blocks)


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
    blocks = [kit.section(_asked(asked, asked_by, cluster, language, word="capture"))]
    if headline:
        blocks.append(kit.section(f"*{escape(headline)}*"))
    if table:
        blocks.append(kit.preformatted("\n".join(map(printable, table))))
    if notes:
        blocks.append(kit.lines([escape(note) for note in notes], language))
    if step:
        blocks.append(kit.context([f":mag: {escape(language(step))}"]))
    return kit.message(f"capture {asked}: {headline or language(step)}", blocks, language)


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
        kit.section(_asked(asked, asked_by, cluster, language, word="policy")),
        kit.section(f"{mark} *{escape(headline)}*"),
        kit.context([note]),
    ]
    blocks += [kit.lines(lines, language) for lines in paragraphs]
    return kit.message(f"policy {asked}: {headline}", blocks, language)


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
    blocks = [kit.section(_asked(asked, asked_by, cluster, language, word=""))]
    headline = language(found.headline if found else step)
    if found:
        blocks.append(kit.section(f"{MARKS[found.mark]} *{escape(headline)}*"))
        whole = found.form(output)
        if whole and fits(whole):
            blocks.append(kit.preformatted("\n".join(map(printable, whole.rstrip("\n").split("\n")))))
        elif whole:
            shown = _beginning(list(map(printable, whole.split("\n"))))
            blocks += [
                kit.preformatted(shown),
                kit.context([escape(language(say("… all of it is the file in the thread")))]),
            ]
        if found.notes:
            blocks.append(kit.lines([escape(language(note)) for note in found.notes], language))
    if step:
        blocks.append(kit.context([f":mag: {escape(headline)}"]))
    return kit.message(f"{asked}: {headline}", blocks, language)


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
    blocks = [kit.lines(lines, language)]
    named = wording.legs(diagnosis, language)
    width = max([8, *(wording.width(name) for name, _ in named)])
    drawn = "\n".join(printable(f"{wording.padded(name, width)} {wording.path(leg, language)}") for name, leg in named)
    if drawn:
        blocks.append(kit.preformatted(drawn))
    blocks += [kit.context([escape(wording.lost(leg, language))]) for _, leg in named if leg.lost]
    found = (*diagnosis.causes, *diagnosis.warnings)
    blocks += _commands(say("See it"), [one for cause in found for one in commands.to_see(cause, diagnosis)], language)
    remedies: dict[str, list[commands.Command]] = {}
    for cause in diagnosis.causes:
        typed = remedies.setdefault(wording.remedy(cause, language), [])
        typed += commands.by_hand(cause, diagnosis.facts)
    for remedy, typed in remedies.items():
        blocks.append(kit.section(f"*{language(say('Do now'))}:* {escape(remedy)}"))
        blocks += _commands(say("By hand"), typed, language)
    for remedy in dict.fromkeys(wording.remedy(warning, language) for warning in diagnosis.warnings):
        blocks.append(kit.section(f"*{language(say('Do later'))}:* {escape(remedy)}"))
    if diagnosis.verdict == "unknown" and (step := wording.next_step(investigation, language)):
        blocks.append(kit.section(f"*{language(say('Next'))}:* {escape(step)}"))
    told = "; ".join(wording.ends(name, leg, language) for name, leg in named)
    title = say("The path: {legs}", legs=told) if told else say("The path is not known")
    return kit.message(language(title), blocks, language)


def _commands(head: Text, found: Sequence[commands.Command], language: Language) -> list[kit.Block]:
    """What a reader can type, a line each, which begins with where."""
    lines = [printable(str(one)) for one in dict.fromkeys(found)][:TABLE_ROWS]
    return [kit.section(f"*{language(head)}:*"), kit.preformatted("\n".join(lines))] if lines else []


def _evidence(investigation: Investigation, language: Language) -> Message | None:
    rows = evidence.rows(investigation.diagnosis)
    if not rows:
        return None
    table = [[language(one) for one in (say("Node"), say("What"), say("Expected"), say("Seen"))]]
    size = 0
    for row in rows[:TABLE_ROWS]:
        mark = "✗ " if row.wrong else ""
        said = (row.node, language(row.what), language(row.expected), mark + language(row.seen))
        cells = [kit.cut(printable(one), CELL) or "-" for one in said]
        size += sum(map(len, cells))
        if size > TABLE:
            break
        table.append(cells)
    left = len(rows) - (len(table) - 1)
    wrong = sum(row.wrong for row in rows)
    title = language(say("Evidence: {count} things seen, {wrong} not as expected", count=len(rows), wrong=wrong))
    blocks = [kit.section(f"*{title}*"), kit.table(table)]
    if left:
        more = say("{count} more, all of them with: `calico-why why --verbose`", count=left)
        blocks.append(kit.context([language(more)]))
    return kit.message(title, blocks, language)


def _seen(investigation: Investigation, note: str, language: Language) -> Message:
    diagnosis = investigation.diagnosis
    blind = wording.blind(diagnosis, language)
    lines = [language(say("*Could not see:*") if blind else say("*Could not see:* nothing"))]
    lines += [f"• {escape(one)}" for one in blind]
    blocks = [kit.lines(lines, language)]
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
    blocks.append(kit.context(["   ".join(few)]))
    unseen = say("{checked}; could not see: {count}", checked=count, count=len(blind) or say("nothing"))
    return kit.message(language(unseen), blocks, language)
