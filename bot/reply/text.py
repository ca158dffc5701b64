"""The answer on a terminal: first line the answer, second the proof, third what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bot.investigate import Investigation
from bot.language import ENGLISH, Language
from bot.reply import commands, evidence, wording
from bot.reply.wording import Request, padded, printable
from facts import Cause, Diagnosis, say

WIDTH = 100
LABEL = 10  # columns of "Do now", "Do later" and "Next"

_COLOURS = {"x": "31;1", "!": "33;1", "ok": "32;1", "?": "33;1"}


def render(
    investigation: Investigation,
    *,
    verbose: bool = False,
    fixes: Sequence[Request] = (),
    colour: bool = False,
    language: Language = ENGLISH,
) -> str:
    """The whole answer, ending with a newline. fixes: FixRequests (custom resources) made for its causes."""
    diagnosis = investigation.diagnosis
    parts = [_question(investigation, language), ""]
    if diagnosis.verdict == "cause":
        parts += _causes(diagnosis, fixes, language)
    else:
        parts += _no_cause(investigation, language)
    for warning in diagnosis.warnings:
        later = padded(language(say("Do later")), LABEL)
        parts += [*_finding("!", warning, language), *_see(warning, diagnosis, language)]
        parts += [f"  {later}{wording.remedy(warning, language)}"]
    if verbose:
        parts += _details(diagnosis, language)
    parts += ["", *_end(investigation, verbose, language)]
    lines = [printable(line).rstrip() for line in parts]
    bad_hop = wording.bad_hop(language)
    return "\n".join(_painted(line, bad_hop) if colour else line for line in lines) + "\n"


def _question(investigation: Investigation, language: Language) -> str:
    source, target = (wording.placed(investigation, side, language) for side in wording.sides(investigation))
    setting = wording.setting(investigation.diagnosis, language)
    cluster = f"[{investigation.cluster}]" if investigation.cluster else ""
    about = "      ".join(filter(None, (wording.port(investigation), setting, cluster)))
    return f"{source}  ->  {target}   {about}"


def _causes(diagnosis: Diagnosis, fixes: Sequence[Request], language: Language) -> list[str]:
    lines: list[str] = []
    for index, cause in enumerate(diagnosis.causes):
        lines += _finding("x", cause, language)
        if index == 0:
            if diagnosis.summary:
                lines.append(f"  {wording.summary(diagnosis, language)}")
            lines += ["", *_path(diagnosis, language)]
        lines += _see(cause, diagnosis, language)
        lines += [*_do_now(cause, diagnosis, fixes, language), ""]
    return lines[:-1]


def _finding(mark: str, cause: Cause, language: Language) -> list[str]:
    head = f"{mark} {wording.titled(cause, language)}"
    rule = f"{cause.rule:>{max(WIDTH - wording.width(head), len(cause.rule) + 2)}}"
    return [f"{head}{rule}", *(f"  {one}" for one in wording.told(cause, language))]


def _path(diagnosis: Diagnosis, language: Language) -> list[str]:
    named = wording.legs(diagnosis, language)
    width = max([9, *(wording.width(name) for name, _ in named)])
    lines: list[str] = []
    for name, leg in named:
        lines.append(f"  {padded(name, width)} {wording.path(leg, language)}")
        if leg.lost and diagnosis.verdict == "cause":  # where there is none the summary says it
            lines.append(f"  {padded('', width)} {wording.lost(leg, language)}")
    return [*lines, ""] if lines else []


def _see(cause: Cause, diagnosis: Diagnosis, language: Language) -> list[str]:
    """What shows it to who would rather see it; each begins with where it is typed."""
    label, below = padded(language(say("See it")), LABEL), " " * LABEL
    return [f"  {below if index else label}{one}" for index, one in enumerate(commands.to_see(cause, diagnosis))]


def _do_now(cause: Cause, diagnosis: Diagnosis, fixes: Sequence[Request], language: Language) -> list[str]:
    below = " " * LABEL
    lines = [f"  {padded(language(say('Do now')), LABEL)}{wording.remedy(cause, language)}"]
    lines += [f"  {below}{one}" for one in commands.by_hand(cause, diagnosis.facts)]
    request = wording.fix_for(cause, fixes)
    if request:
        spec = request.get("spec") or {}
        title = say("{title} (undo: {undo})", title=spec.get("title", ""), undo=spec.get("undo", ""))
        approve = say(
            "a second person: {command}   until {deadline}",
            command=f"calico-why approve {wording.request_name(request)}",
            deadline=spec.get("expiresAt", ""),
        )
        lines += [f"  {below}{language(title)}", f"  {below}{language(approve)}"]
    elif cause.fix:
        ask = say("have it done: ask again with --request-fix; a second person approves it")
        lines.append(f"  {below}{language(ask)}")
    return lines


def _no_cause(investigation: Investigation, language: Language) -> list[str]:
    diagnosis = investigation.diagnosis
    healthy = diagnosis.verdict == "healthy"
    lines = [f"{'ok' if healthy else '?'} {wording.headline(investigation, language)}"]
    if diagnosis.summary:
        lines.append(f"  {wording.summary(diagnosis, language)}")
    if healthy:
        return lines
    lines += [f"  {one}" for one in wording.blind(diagnosis, language)]
    if diagnosis.path:
        lines += ["", *_path(diagnosis, language)[:-1]]
    step = wording.next_step(investigation, language)
    return [*lines, f"  {padded(language(say('Next')), LABEL)}{step}"] if step else lines


def _details(diagnosis: Diagnosis, language: Language) -> list[str]:
    lines = ["", language(say("Checked and well"))]
    lines += [f"  {one}" for one in wording.checked(diagnosis, language)] or [f"  {language(say('nothing'))}"]
    if unseen := wording.blind(diagnosis, language, most=len(diagnosis.blind)):
        lines += ["", language(say("Could not see")), *(f"  {one}" for one in unseen)]
    lines += ["", language(say("Expected and seen"))]
    for row in evidence.rows(diagnosis):
        mark = "x" if row.wrong else " "
        expected = f"   {language(say('expected {value}', value=row.expected))}" if row.wrong else ""
        lines.append(f"  {mark} {row.node:<12} {language(row.what)}: {language(row.seen)}{expected}")
    return lines


def _end(investigation: Investigation, verbose: bool, language: Language) -> list[str]:
    diagnosis = investigation.diagnosis
    unseen = wording.blind(diagnosis, language)
    few = [
        say(
            "Checked and well: {count}" if verbose else "Checked and well: {count} (--verbose lists them)",
            count=len(diagnosis.checked),
        ),
        say("Could not see: {count}", count=len(unseen) or say("nothing")),
        say("{seconds} s", seconds=f"{investigation.elapsed_ms / 1000:.2f}"),
    ]
    if investigation.saved:
        few.append(say("saved as {file}", file=investigation.saved))
    lines = ["    ".join(map(language, few))]
    if investigation.not_saved:
        lines.append(language(say("Not saved: {why}", why=investigation.not_saved)))
    if diagnosis.verdict != "unknown":
        lines[1:1] = [f"  {one}" for one in unseen]
    return lines


def _painted(line: str, bad_hop: str) -> str:
    """Colour on the mark at the beginning of a finding and on the bad hop, nowhere else."""
    mark = re.match(r"(x|!|ok|\?) ", line)
    if mark:
        word = mark[1]
        return f"\x1b[{_COLOURS[word]}m{line}\x1b[0m"
    return line.replace(f" {bad_hop}", f" \x1b[31;1m{bad_hop}\x1b[0m")
