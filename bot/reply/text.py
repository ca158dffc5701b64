"""The answer on a terminal: first line the answer, second the proof, third what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bot.investigate import Investigation
from bot.reply import evidence, wording
from bot.reply.wording import Request, printable
from facts import Cause, Diagnosis

WIDTH = 100

_COLOURS = {"x": "31;1", "!": "33;1", "ok": "32;1", "?": "33;1"}


def render(
    investigation: Investigation, *, verbose: bool = False, fixes: Sequence[Request] = (), colour: bool = False
) -> str:
    """The whole answer, ending with a newline. fixes: FixRequests (custom resources) made for its causes."""
    diagnosis = investigation.diagnosis
    parts = [_question(investigation), ""]
    if diagnosis.verdict == "cause":
        parts += _causes(diagnosis, fixes)
    else:
        parts += _no_cause(investigation)
    for warning in diagnosis.warnings:
        parts += [*_finding("!", warning), f"  Do later  {wording.remedy(warning)}"]
    if verbose:
        parts += _details(diagnosis)
    parts += ["", *_end(investigation, verbose)]
    lines = [printable(line).rstrip() for line in parts]
    return "\n".join(_painted(line) if colour else line for line in lines) + "\n"


def _question(investigation: Investigation) -> str:
    source, target = (wording.placed(investigation, side) for side in wording.sides(investigation))
    about = "      ".join(filter(None, (wording.port(investigation), wording.setting(investigation.diagnosis))))
    return f"{source}  ->  {target}   {about}"


def _causes(diagnosis: Diagnosis, fixes: Sequence[Request]) -> list[str]:
    lines: list[str] = []
    for index, cause in enumerate(diagnosis.causes):
        lines += _finding("x", cause)
        if index == 0:
            if diagnosis.summary:
                lines.append(f"  {diagnosis.summary}")
            lines += ["", *_path(diagnosis)]
        lines += [*_do_now(cause, fixes), ""]
    return lines[:-1]


def _finding(mark: str, cause: Cause) -> list[str]:
    head = f"{mark} {cause.title}"
    lines = [f"{head}{cause.rule:>{max(WIDTH - len(head), len(cause.rule) + 2)}}", f"  {cause.text}"]
    if cause.felix:
        lines.append(f"  {cause.felix}")
    return lines


def _path(diagnosis: Diagnosis) -> list[str]:
    named = wording.legs(diagnosis)
    width = max([9, *(len(name) for name, _ in named)])
    lines = [f"  {name:<{width}} {wording.path(leg)}" for name, leg in named]
    return [*lines, ""] if lines else []


def _do_now(cause: Cause, fixes: Sequence[Request]) -> list[str]:
    lines = [f"  Do now    {wording.remedy(cause)}"]
    request = wording.fix_for(cause, fixes)
    if request:
        spec = request.get("spec") or {}
        name = wording.request_name(request)
        lines.append(f"            {spec.get('title', '')} (undo: {spec.get('undo', '')})")
        lines.append(f"            a second person: calico-why approve {name}   until {spec.get('expiresAt', '')}")
    elif cause.fix:
        lines.append("            have it done: ask again with --request-fix; a second person approves it")
    return lines


def _no_cause(investigation: Investigation) -> list[str]:
    diagnosis = investigation.diagnosis
    healthy = diagnosis.verdict == "healthy"
    lines = [f"{'ok' if healthy else '?'} {wording.headline(investigation)}"]
    if diagnosis.summary:
        lines.append(f"  {diagnosis.summary}")
    if healthy:
        return lines
    lines += [f"  {one}" for one in wording.blind(diagnosis)]
    if diagnosis.path:
        lines += ["", *_path(diagnosis)[:-1]]
    step = wording.next_step(diagnosis.blind)
    return [*lines, f"  Next      {step}"] if step else lines


def _details(diagnosis: Diagnosis) -> list[str]:
    lines = ["", "Checked and well"]
    lines += [f"  {one}" for one in wording.checked(diagnosis)] or ["  nothing"]
    lines += ["", "Expected and seen"]
    for row in evidence.rows(diagnosis):
        mark = "x" if row.wrong else " "
        expected = f"   expected {row.expected}" if row.wrong else ""
        lines.append(f"  {mark} {row.node:<12} {row.what}: {row.seen}{expected}")
    return lines


def _end(investigation: Investigation, verbose: bool) -> list[str]:
    diagnosis = investigation.diagnosis
    unseen = wording.blind(diagnosis)
    few = [f"Checked and well: {len(diagnosis.checked)}{'' if verbose else ' (--verbose lists them)'}"]
    few.append(f"Could not see: {len(unseen) or 'nothing'}")
    few.append(f"{investigation.elapsed_ms / 1000:.2f} s")
    if investigation.saved:
        few.append(f"saved as {investigation.saved}")
    lines = ["    ".join(few)]
    if investigation.not_saved:
        lines.append(f"Not saved: {investigation.not_saved}")
    if diagnosis.verdict != "unknown":
        lines[1:1] = [f"  {one}" for one in unseen]
    return lines


def _painted(line: str) -> str:
    """Colour on the mark at the beginning of a finding and on the bad hop, nowhere else."""
    mark = re.match(r"(x|!|ok|\?) ", line)
    if mark:
        word = mark[1]
        return f"\x1b[{_COLOURS[word]}m{line}\x1b[0m"
    return line.replace(" x first bad hop", " \x1b[31;1mx first bad hop\x1b[0m")
