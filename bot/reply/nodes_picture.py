"""All nodes as a picture (SVG): a card for each, or a dot where they are many; without it nobody sees at a glance where
it is red.

Drawn with the style of bot.reply.picture, which turns into a PNG as that one does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape, quoteattr

from bot.node.model import UNSEEN, WRONG, Status
from bot.reply.nodes import bgp_cell, headline, ordered, route_cell, tunnel_cell
from bot.reply.picture import CHARACTER, LINE, STYLE
from bot.reply.wording import printable, width

# px
CARD, GAP, EDGE, MOST_WIDE = (220, 90), 12, 20, 4
CARDS, TILES, TILE = 24, 3000, 14


def in_words(found: Sequence[Status]) -> str:
    counted = Counter(one.mark for one in found)
    not_well, unknown, healthy = counted["cause"], counted["unknown"], counted["healthy"]
    return f"{not_well} nodes are not as they should be, {unknown} could not be judged, {healthy} are ok"


def picture(found: Sequence[Status], cluster: str) -> str:
    """SVG: a card for each node, those with findings first; of many nodes the others are one square each."""
    if not found:
        return ""
    in_order = ordered(found)
    whole = in_order if len(in_order) <= CARDS else [one for one in in_order if one.mark != "healthy"][:CARDS]
    small = in_order[len(whole) :]
    columns = max(min(len(whole), MOST_WIDE), 3)
    wide = 2 * EDGE + columns * (CARD[0] + GAP) - GAP
    across = max((wide - 2 * EDGE) // TILE, 1)
    head = headline(found, ())
    parts = [
        _words(EDGE, 34, cluster, "head"),
        _words(EDGE, 56, head, "strong wrong" if in_order[0].mark == "cause" else "strong"),
    ]
    top = 76
    for number, one in enumerate(whole):
        parts += _card(one, EDGE + (number % columns) * (CARD[0] + GAP), top + (number // columns) * (CARD[1] + GAP))
    top += -(-len(whole) // columns) * (CARD[1] + GAP)
    for number, one in enumerate(small[:TILES]):
        parts.append(_tile(one, EDGE + (number % across) * TILE, top + (number // across) * TILE))
    top += -(-len(small[:TILES]) // across) * TILE
    if len(small) > TILES:
        top += LINE
        parts.append(_words(EDGE, top, f"{len(small) - TILES} more nodes", "soft"))
    high = top + EDGE
    told = f"{in_words(found)}."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}" '
        f'role="img" aria-label={quoteattr(printable(told))}>\n<title>{escape(printable(cluster))}</title>'
        f"<desc>{escape(printable(told))}</desc>\n<style>{STYLE}</style>\n"
        f'<rect class="paper" width="100%" height="100%" rx="8"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _card(one: Status, x: int, y: int) -> Iterator[str]:
    shape = {"cause": "alarm", "unknown": "net", "healthy": "box"}[one.mark]
    most = int((CARD[0] - 44) / CHARACTER)
    yield f'<rect class="{shape}" x="{x}" y="{y}" width="{CARD[0]}" height="{CARD[1]}" rx="8"/>'
    yield f'<circle class="{_class(one)}" cx="{x + 18}" cy="{y + 20}" r="7"/>'
    yield _words(x + 32, y + 25, _cut(one.node, most), "strong")
    finding = next((str(said.text) for said in one.findings if said.weight in (WRONG, UNSEEN)), "")
    if finding:
        lines = _lines(finding, int((CARD[0] - 24) / CHARACTER) + 4, 3)
    else:
        lines = [f"Felix {one.felix or 'not seen'}", f"BGP {bgp_cell(one.bgp)}, routes {route_cell(one.routes)}",
                 tunnel_cell(one.tunnels)]  # fmt: skip
    for number, line in enumerate(lines):
        yield _words(x + 12, y + 42 + number * 15, line, "soft")


def _tile(one: Status, x: int, y: int) -> str:
    return (
        f'<circle class="{_class(one)}" cx="{x + TILE / 2:g}" cy="{y + TILE / 2:g}" r="{TILE / 2 - 2:g}">'
        f"<title>{escape(printable(one.node))}</title></circle>"
    )


def _class(one: Status) -> str:
    return {"cause": "bad", "unknown": "unknown", "healthy": "ok"}[one.mark]


def _lines(words: str, most: int, count: int) -> list[str]:
    lines = [""]
    for word in words.split():
        if len(lines[-1]) + len(word) + 1 > most and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    shown = [_cut(line, most) for line in lines[:count]]
    return shown if len(lines) <= count else [*shown[:-1], _cut(shown[-1] + " …" * 9, most)]


def _cut(words: str, most: int) -> str:
    return words if width(words) <= most else words[: most - 1] + "…"


def _words(x: float, y: float, words: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(printable(str(words)))}</text>'
