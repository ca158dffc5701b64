"""The path as a picture (SVG): both ways with pods, nodes and devices, red where packets are lost; without it whoever
joins an incident late reads words where a glance would do.

Nothing in it is loaded from anywhere: it is as safe to open as a text file. Its colours follow the reader's choice of
light or dark.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from xml.sax.saxutils import escape, quoteattr

from bot.investigate import Investigation
from bot.language import ENGLISH, Language
from bot.reply import wording
from bot.reply.wording import printable
from facts import Cause, Diagnosis, Hop, Leg, LegPath, say
from facts.flow import STAGES, mirrored

MOST_FLOWS = 4
COLUMN, LEFT, RIGHT = 122, 104, 20  # px
PANEL = 196  # px of height: one flow without its callouts
LANES = {"forward": 84, "reverse": 132}  # px below the panel's top
LINE = 18  # px
CHARACTER = 7.3  # px of a column of text, as wide as any font makes it
SHOWN_LINES = 5  # of a proof
UNEXPLAINED = say("Lost here, and no cause was found")
UNPLACED = say("Not seen any more, and no cause was found")
STYLE = """
svg{--paper:#fff;--ink:#1d1c1d;--soft:#5c6370;--box:#f5f6f8;--pod:#fff;--edge:#c9ced6;--ok:#1a7f37;--bad:#cf222e;
--unknown:#8c959f;--alarm:#fff1f0}
@media (prefers-color-scheme:dark){svg{--paper:#1a1d21;--ink:#e8e8e8;--soft:#a3a9b3;--box:#24282e;--pod:#1a1d21;
--edge:#434a54;--ok:#3fb950;--bad:#ff6b64;--unknown:#7d8590;--alarm:#35201f}}
text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Noto Sans CJK SC",sans-serif;fill:var(--ink)}
.head{font-size:17px;font-weight:600}.strong{font-weight:600}.soft{fill:var(--soft);font-size:12px}
.name{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:11.5px}
.count{font-size:11px;fill:var(--soft)}
.name,.count{paint-order:stroke;stroke:var(--box);stroke-width:4px}.inside{stroke:var(--pod)}.middle{text-anchor:middle}.end{text-anchor:end}
.paper{fill:var(--paper)}.box{fill:var(--box);stroke:var(--edge)}.pod{fill:var(--pod);stroke:var(--edge)}
.net{fill:none;stroke:var(--edge);stroke-dasharray:5 4}
line,path{fill:none;stroke-width:2.5;stroke-linecap:round;stroke-linejoin:round}
.ok{stroke:var(--ok)}.bad{stroke:var(--bad)}.unknown{stroke:var(--unknown)}
line.unknown{stroke-dasharray:1 7}
.checked{stroke:var(--ok)}line.checked,path.checked{stroke-width:1.5}
circle.ok{fill:var(--ok)}circle.checked{fill:var(--paper);stroke-width:2}circle.bad{fill:var(--bad)}circle.unknown{fill:var(--paper);stroke-width:2}
.sign{stroke:var(--paper);stroke-width:2.2}.lead{stroke:var(--bad);stroke-width:1.5;stroke-dasharray:4 3}
.alarm{fill:var(--alarm);stroke:var(--bad)}text.wrong{fill:var(--bad)}
"""


@dataclass(frozen=True)
class _Column:
    """One stage, counted from the source of the forward leg."""

    stage: str
    node: str
    name: str
    x: float


@dataclass(frozen=True)
class _Callout:
    """What is said beside lost stages. marks: (lane, column) of each."""

    title: str
    lines: tuple[str, ...]
    marks: tuple[tuple[str, _Column], ...]


def render(investigation: Investigation, language: Language = ENGLISH) -> str:
    """A whole SVG document; "" where no path is known."""
    diagnosis = investigation.diagnosis
    flows = [list(legs) for _, legs in groupby(diagnosis.path, key=lambda leg: leg.flow)]
    if not flows:
        return ""
    shown, passed = flows[:MOST_FLOWS], diagnosis.verdict == "healthy"
    width = max(_width(_columns(legs, language)) for legs in shown)
    source, target = wording.sides(investigation)
    asked = " ".join(filter(None, (f"{source} → {target}", wording.port(investigation))))
    parts = [
        _text(LEFT - 84, 34, asked, "head"),
        _text(LEFT - 84, 56, _fitted(wording.headline(investigation, language), width - 40), _tone(diagnosis)),
    ]
    top = 80.0
    for legs in shown:
        columns = _columns(legs, language)
        boxes, bottom = [], top + PANEL
        for callout in _callouts(diagnosis, legs, columns, width, language):
            boxes.append((callout, bottom))
            bottom += (len(callout.lines) + 1) * LINE + 30
        parts += _frames(columns, top)
        parts += [_lead(callout, top, y) for callout, y in boxes]  # behind whatever they pass
        parts += _panel(legs, columns, top, language, passed=passed, title=_flow_title(diagnosis, legs, shown))
        for callout, y in boxes:
            parts += _callout(callout, y, width)
        top = bottom + 16
    if len(flows) > len(shown):
        parts.append(_text(LEFT - 84, top + 6, language(say("{count} more", count=len(flows) - len(shown))), "soft"))
        top += LINE
    parts += _legend(top, [leg for legs in shown for leg in legs], language, passed=passed)
    parts.append(_text(20, top + 34, f"{investigation.cluster}  {investigation.id}", "soft"))
    told = wording.path_in_words(diagnosis, language)
    height = top + 50
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label={quoteattr(printable(told))}>\n'
        f"<title>{escape(printable(asked))}</title><desc>{escape(printable(told))}</desc>\n<style>{STYLE}</style>\n"
        f'<rect class="paper" width="100%" height="100%" rx="8"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _columns(legs: Sequence[LegPath], language: Language) -> list[_Column]:
    """Every stage that one of the two legs has."""
    found: dict[str, Hop] = {}
    for leg in legs:
        for hop in leg.hops:
            found.setdefault(_place(leg, hop), hop)
    names = {"node": language(say("routing")), "": language(say("network"))}
    return [
        _Column(
            stage=stage,
            node=found[stage].node,
            name=names.get(stage.partition(" ")[2], found[stage].name),
            x=LEFT + COLUMN * (number + 0.5),
        )
        for number, stage in enumerate(stage for stage in STAGES if stage in found)
    ]


def _place(leg: LegPath, hop: Hop) -> str:
    """Its stage, counted from the source of the forward leg; within one node routing is done once."""
    if leg.direction == "forward" or (hop.stage == "source node" and all(one.node for one in leg.hops)):
        return hop.stage
    return mirrored(hop.stage)


def _width(columns: Sequence[_Column]) -> float:
    return max(LEFT + COLUMN * len(columns) + RIGHT, 760)


def _flow_title(diagnosis: Diagnosis, legs: Sequence[LegPath], shown: Sequence[Sequence[LegPath]]) -> str:
    """By which family, where several are drawn: the ends are there to read."""
    families = {leg.flow: f"IPv{leg.family}" for leg in diagnosis.facts if isinstance(leg, Leg)}
    told = {families.get(flow[0].flow, "") for flow in shown}
    return families.get(legs[0].flow, "") if len(told) > 1 else ""


# -- one flow


def _frames(columns: Sequence[_Column], top: float) -> Iterator[str]:
    for node, run in groupby(columns, key=lambda column: column.node):
        group = list(run)
        left, wide = group[0].x - COLUMN / 2 + 4, COLUMN * len(group) - 8
        kind, high = "box" if node else "net", PANEL - 12
        yield f'<rect class="{kind}" x="{left:g}" y="{top:g}" width="{wide:g}" height="{high}" rx="8"/>'
        if node:
            yield _text(left + 10, top + 20, _fitted(node, wide - 16), "strong")
    for column in columns:
        if column.stage.endswith(" pod"):
            yield (
                f'<rect class="pod" x="{column.x - COLUMN / 2 + 12:g}" y="{top + 52:g}" width="{COLUMN - 24}" '
                f'height="{PANEL - 76}" rx="6"/>'
            )


def _panel(
    legs: Sequence[LegPath], columns: Sequence[_Column], top: float, language: Language, *, passed: bool, title: str
) -> Iterator[str]:
    forward = next((leg for leg in legs if leg.direction == "forward"), legs[0])
    for column in columns:
        inside = column.stage.endswith(" pod")
        if inside:
            source = column.stage == "source pod"
            pod = _fitted(forward.source if source else forward.target, 2 * COLUMN - 30)
            edge = column.x + (COLUMN / 2 - 12) * (-1 if source else 1)
            yield _text(edge, top + 43, pod, "name" if source else "name end")
        kind = "name inside middle" if inside else "name middle"
        yield _text(column.x, top + PANEL - 30, _fitted(column.name, COLUMN - 4), kind)
    if title:
        yield _text(20, top + 20, title, "strong")
    for leg in legs:
        yield from _lane(leg, columns, top + LANES[leg.direction], passed, language)


def _state(leg: LegPath, hop: Hop, *, passed: bool) -> str:
    """Its state; "checked" for "ok" where no packet was seen to pass, and nothing wrong was found.

    passed: packets came back, so they passed everything.
    """
    followed = any(one.met >= 0 for one in leg.hops)
    return "checked" if hop.state == "ok" and not (passed or followed) else hop.state


def _lane(leg: LegPath, columns: Sequence[_Column], y: float, passed: bool, language: Language) -> Iterator[str]:
    at = {column.stage: column.x for column in columns}
    stations = [(hop, _state(leg, hop, passed=passed), at[_place(leg, hop)]) for hop in leg.hops]
    name = wording.way(leg.direction, language)
    yield _text(20, y + 4, f"{name} →" if leg.direction == "forward" else f"← {name}", "soft")
    for (_, state, x), (_, _, to) in pairwise(stations):
        kind = state if state in ("ok", "checked") else "unknown"
        middle, tip = (x + to) / 2, 4 if to > x else -4
        yield f'<line class="{kind}" x1="{x:g}" y1="{y:g}" x2="{to:g}" y2="{y:g}"/>'
        chevron = f"M{middle - tip:g} {y - 5:g}L{middle + tip:g} {y:g}L{middle - tip:g} {y + 5:g}"
        yield f'<path class="{kind}" d="{chevron}"/>'
    for hop, state, x in stations:
        yield f'<circle class="{state}" cx="{x:g}" cy="{y:g}" r="9"><title>{_hint(hop, language)}</title></circle>'
        if state == "ok":
            yield f'<path class="sign" d="M{x - 4:g} {y:g}L{x - 1:g} {y + 3.5:g}L{x + 4.5:g} {y - 3.5:g}"/>'
        if state == "bad":
            yield f'<path class="sign" d="M{x - 3.5:g} {y - 3.5:g}l7 7m0 -7l-7 7"/>'
        if hop.met > 0 or (hop.met == 0 and hop.state == "bad"):
            yield _text(x, y + 22, str(hop.met), f"count middle{' inside' if hop.stage.endswith(' pod') else ''}")


def _hint(hop: Hop, language: Language) -> str:
    return escape(printable(f"{language(wording.place(hop.stage))}: {hop.name}"))


# -- what is said beside it


def _callouts(
    diagnosis: Diagnosis, legs: Sequence[LegPath], columns: Sequence[_Column], width: float, language: Language
) -> list[_Callout]:
    """One for each cause that has a place on one of these legs; else what is known of the loss."""
    at = {column.stage: column for column in columns}
    wide = int((width - LEFT - 40) / CHARACTER)
    found: dict[str, _Callout] = {}
    for leg in legs:
        cause = next((one for one in diagnosis.causes if leg.first_bad and _concerns(one, leg)), None)
        lost = tuple(_wrapped(wording.lost(leg, language), wide))
        if not (leg.first_bad or lost):
            continue
        if cause:
            title = language(cause.title)
            proof = [line for text in wording.told(cause, language)[:1] for line in _wrapped(text, wide)]
        else:
            title, proof = language(UNEXPLAINED if leg.first_bad else UNPLACED), []
        place = next((_place(leg, hop) for hop in leg.hops if hop.stage == leg.first_bad), "")
        same = found.get(title) or _Callout(title=title, lines=tuple(proof[:SHOWN_LINES]), marks=())
        marks = ((leg.direction, at[place]),) if place else ()
        found[title] = _Callout(title=title, lines=same.lines + lost, marks=same.marks + marks)
    return list(found.values())


def _concerns(cause: Cause, leg: LegPath) -> bool:
    """Is it the cause of the leg's first bad hop?"""
    stage = mirrored(cause.stage) if cause.leg == "both" and leg.direction == "reverse" else cause.stage
    near = stage == leg.first_bad or (stage == "target node" and leg.first_bad == "source node")
    return cause.severity == "breaks" and cause.leg in (leg.direction, "both") and cause.flow in (leg.flow, "") and near


def _lead(callout: _Callout, top: float, y: float) -> str:
    """From each mark down to the callout."""
    return "".join(
        f'<line class="lead" x1="{column.x:g}" y1="{top + LANES[lane] + 11:g}" x2="{column.x:g}" y2="{y:g}"/>'
        for lane, column in callout.marks
    )


def _callout(callout: _Callout, y: float, width: float) -> Iterator[str]:
    high = (len(callout.lines) + 1) * LINE + 14
    yield f'<rect class="alarm" x="{LEFT:g}" y="{y:g}" width="{width - LEFT - RIGHT:g}" height="{high:g}" rx="6"/>'
    yield _text(LEFT + 14, y + 22, callout.title, "strong wrong")
    for number, line in enumerate(callout.lines, 1):
        yield _text(LEFT + 14, y + 22 + number * LINE, line)


def _legend(top: float, legs: Sequence[LegPath], language: Language, *, passed: bool) -> Iterator[str]:
    """Of the states that are there."""
    there = {_state(leg, hop, passed=passed) for leg in legs for hop in leg.hops}
    words = {
        "ok": say("packets passed") if passed else say("packets were seen to pass"),
        "checked": say("nothing wrong was found"),
        "bad": say("first bad hop"),
        "unknown": say("not known"),
    }
    x = 28.0
    for state, word in words.items():
        if state in there:
            told = language(word)
            yield f'<circle class="{state}" cx="{x:g}" cy="{top + 4:g}" r="6"/>'
            yield _text(x + 12, top + 8, told, "soft")
            x += 34 + wording.width(told) * CHARACTER
    if any(hop.met >= 0 for leg in legs for hop in leg.hops):
        yield _text(x - 4, top + 8, language(say("number: packets seen to leave that stage")), "soft")


# -- text


def _tone(diagnosis: Diagnosis) -> str:
    return "strong wrong" if diagnosis.verdict == "cause" else "strong"


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(printable(words))}</text>'


def _fitted(words: str, wide: float) -> str:
    """Cut at the end, where it would not fit into so many pixels."""
    most = int(wide / CHARACTER)
    if wording.width(words) <= most:
        return words
    while words and wording.width(words) > most - 1:
        words = words[:-1]
    return words + "…"


def _wrapped(text: str, most: int) -> list[str]:
    """Lines of so many columns; Chinese, which has no spaces, breaks anywhere."""
    lines: list[str] = []
    line = ""
    for word in _words(text):
        if line and wording.width(line + word) > most:
            lines.append(line.rstrip())
            line = ""
        line += word
        while wording.width(line) > most:  # a name longer than a line
            head = _fitted(line, most * CHARACTER)[:-1]
            lines.append(head)
            line = line[len(head) :]
    return [*lines, line.rstrip()] if line.strip() else lines


def _words(text: str) -> Iterator[str]:
    word = ""
    for one in text:
        if wording.width(one) > 1:
            if word:
                yield word
            yield one
            word = ""
        else:
            word += one
            if one == " ":
                yield word
                word = ""
    if word:
        yield word
